"""Attention in which video and text also read learned motion tokens: the arithmetic alone.

Motion tokens are keys and values only: their own rows would be thrown away, and they depend neither on the timestep
nor on the video. So they are projected once per run, and no N x N mask is needed for their bias.

Shape letters: B batch, H heads, N tokens, M motion tokens, D head width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..kernels import Kernel, attend, kernel_with_lse

# Enough rows for a picture, few enough that their logits over all keys of a long video are small.
SHARE_ROWS = 32


@dataclass(frozen=True, eq=False)
class LayerMotion:
    """Keys and values (1, H, M, D) of one layer's motion tokens, and their log weights (M,) where any is not 0."""

    key: Tensor
    value: Tensor
    log_weight: Tensor | None


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


def _attend_with_row_bias(
    query: Tensor, key: Tensor, value: Tensor, num_text: int, motion: LayerMotion, bias: float
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
