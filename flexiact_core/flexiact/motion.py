"""Attention in which video and text also read learned motion tokens: the arithmetic alone.

Motion tokens are keys and values only: their own rows would be thrown away, and they depend neither on the timestep
nor on the video. So they are projected once per run, and no N x N mask is needed for their bias.

Shape letters: B batch, H heads, N tokens, M motion tokens, D head width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..kernels import Kernel, attend, kernel_with_lse

# Softmax attention (B, H, Nq, D) of query, key, value and what is added to the logits of each key (Nk,) or None.
Attend = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]

# Enough rows for a picture, few enough that their logits over all keys of a long video are small.
SHARE_ROWS = 32


@dataclass(frozen=True, eq=False)
class LayerMotion:
    """Keys and values (1, H, M, D) of one layer's motion tokens, and their log weights (M,) where any is not 0."""

    key: Tensor
    value: Tensor
    log_weight: Tensor | None


class KeyValueOf(NamedTuple):
    """What a layer makes keys and values of: each takes tokens (1, M, width) and gives (1, H, M, D), normed."""

    key: Callable[[Tensor], Tensor]
    value: Callable[[Tensor], Tensor]


def project_tokens(layers: Iterable[KeyValueOf], actions: Sequence[tuple[Tensor, float]]) -> list[LayerMotion] | None:
    """Keys and values of motion tokens in every layer, from pairs of tokens (layers, M, width) and strength.

    Strength is a weight on the tokens' share of the softmax: 0 is exactly no action, 1 is as trained, 2 counts each
    token twice. Several actions stand side by side, each with its own strength. None if no strength is above 0.
    The layers' own projections and key norm apply, adapters included; no position, no rotary (FlexiAct section 3.3).
    """
    active = [(tokens, strength) for tokens, strength in actions if strength > 0]
    if not active:
        return None
    tokens = torch.cat([tokens for tokens, _ in active], dim=1)
    log_weight = None
    if any(strength != 1 for _, strength in active):
        log_weight = torch.cat(
            [torch.full((part.shape[1],), math.log(strength), device=tokens.device) for part, strength in active]
        )
    return [
        LayerMotion(layer.key(own[None]), layer.value(own[None]), log_weight)
        for layer, own in zip(layers, tokens, strict=True)
    ]


def motion_share(query: Tensor, key: Tensor, num_text: int, motion: LayerMotion, bias: float) -> Tensor:
    """The share (0..1, a scalar) of video tokens' attention that goes to the motion tokens.

    A mean over heads and over about SHARE_ROWS video tokens, evenly spaced, of the last batch entry, which is the
    one with the prompt. query and key are (B, H, N, D), the first num_text of them text.
    """
    own, motion_key = key[-1].float(), motion.key[0].float()
    step = max(1, (query.shape[2] - num_text) // SHARE_ROWS)
    rows = query[-1, :, num_text::step].float() * query.shape[-1] ** -0.5
    motion_logits = rows @ motion_key.mT + bias
    if motion.log_weight is not None:
        motion_logits = motion_logits + motion.log_weight
    difference = motion_logits.logsumexp(-1) - (rows @ own.mT).logsumexp(-1)
    return difference.sigmoid().mean()


def attend_with_motion(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    num_text: int,
    motion: LayerMotion,
    bias: float,
    kernel: Kernel | None = None,
) -> Tensor:
    """Attention (B, H, N, D) over N own keys and the motion tokens, to whose logits video queries add bias.

    query, key and value are (B, H, N, D), the first num_text of them text. kernel is as in attend(), and attends
    over the own keys.
    """
    if motion.log_weight is None and bias == 0:
        return attend(query, *_append(key, value, motion), kernel=kernel)
    torch_kernel = None if torch.is_grad_enabled() else kernel_with_lse(query, key, value)
    if torch_kernel is None:
        return _attend_with_row_bias(query, key, value, num_text, motion, bias)
    attended, lse = torch_kernel(query, key, value, None) if kernel is None else kernel(query, key, value)
    motion_key, motion_value = (x.expand(len(query), -1, -1, -1) for x in (motion.key, motion.value))
    motion_attended, motion_lse = torch_kernel(query, motion_key, motion_value, motion.log_weight)
    # The bias is one number for all motion keys, so it only moves their log-sum-exp, and that of video rows alone.
    motion_lse[:, :, num_text:] += bias
    share = torch.sigmoid(motion_lse - lse)
    return attended.lerp_(motion_attended, share.unsqueeze(-1).to(attended.dtype))


def attend_with_motion_by(
    attend: Attend, query: Tensor, key: Tensor, value: Tensor, num_text: int, motion: LayerMotion, bias: float
) -> Tensor:
    """attend_with_motion() by any function of attention: one call without a bias, two with one.

    For attention that is not ours to replace, and whatever it does to rows it does here too.
    """
    if motion.log_weight is None and bias == 0:
        return attend(query, *_append(key, value, motion), None)
    return _attend_with_row_bias(query, key, value, num_text, motion, bias, attend)


def _attend_with_row_bias(
    query: Tensor, key: Tensor, value: Tensor, num_text: int, motion: LayerMotion, bias: float, attend: Attend = attend
) -> Tensor:
    """The same by attend() alone: for devices whose kernels keep their log-sum-exp, and where gradients are needed."""
    num_own, num_motion = key.shape[2], motion.key.shape[2]
    key, value = _append(key, value, motion)
    log_weight = motion.log_weight if motion.log_weight is not None else query.new_zeros(num_motion)
    text_bias = None if motion.log_weight is None else F.pad(log_weight, (num_own, 0))
    # Softmax rows are independent: the bias concerns video queries only, so text rows run without it.
    text = attend(query[:, :, :num_text], key, value, text_bias)
    video = attend(query[:, :, num_text:], key, value, F.pad(log_weight + bias, (num_own, 0)))
    return torch.cat([text, video], dim=2)


def _append(key: Tensor, value: Tensor, motion: LayerMotion) -> tuple[Tensor, Tensor]:
    return _append_tokens(key, motion.key), _append_tokens(value, motion.value)


def _append_tokens(own: Tensor, motion: Tensor) -> Tensor:
    motion = motion.expand(len(own), -1, -1, -1)
    if motion.requires_grad:
        # cat hands its gradient back as a view, which would keep the gradient of all N + M keys of every layer alive
        # until the turn of the tokens' own projection, the last of a backward pass.
        motion.register_hook(torch.clone)
    return torch.cat([own, motion], dim=2)
