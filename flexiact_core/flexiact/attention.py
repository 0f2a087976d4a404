"""Attention in which video and text also read learned motion tokens.

Motion tokens are keys and values only: their own rows would be thrown away, and they depend neither on the timestep
nor on the video. So they are projected once per run, and no N x N mask is needed for their bias.

Shape letters: B batch, H heads, N tokens, M motion tokens, D head width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend

from ..cogvideox.model import share_weights
from ..errors import ShapeError
from .schedule import MotionBias

# Enough rows for a picture, few enough that their logits over all keys of a long video are small.
SHARE_ROWS = 32


# Attention (B, H, Nq, D) of query, key and value, and the logarithm (B, H, Nq) of each row's softmax sum.
Kernel = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True, eq=False)
class LayerMotion:
    """Keys and values (1, H, M, D) of one layer's motion tokens, and their log weights (M,) where any is not 0."""

    key: Tensor
    value: Tensor
    log_weight: Tensor | None


def attend(query: Tensor, key: Tensor, value: Tensor, key_bias: Tensor | None = None) -> Tensor:
    """Softmax attention over all keys; (B, H, Nq, D) in the dtype of `query`.

    query is (B, H, Nq, D), key and value are (B, H, Nk, D). key_bias (Nk,) is added to the logits of every query.
    Raises ShapeError if key_bias is not Nk long.
    """
    if key_bias is not None:
        if key_bias.shape != key.shape[2:3]:
            raise ShapeError(f"key_bias: {key.shape[2]} values expected, one per key; {list(key_bias.shape)} found.")
        key_bias = key_bias.to(query.dtype).expand(1, 1, 1, -1)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=key_bias)


class MotionAttention:
    """diffusers attention processor of one CogVideoX layer that reads the layer's motion tokens.

    Called through transformer(..., attention_kwargs={"motion": ..., "motion_bias": w}): motion holds a LayerMotion
    for every layer, motion_bias (a number, or a tensor of one) is added to the logits of (video query, motion key).
    Without motion it computes what the stock processor does. on_share, if given, is called with the layer and its
    motion_share(). kernel, if given, attends in place of torch's; it has no gradients.
    """

    def __init__(self, layer: int):
        self.layer = layer

    def __call__(
        self,
        attn,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
        motion: Sequence[LayerMotion] | None = None,
        motion_bias: float | Tensor = 0.0,
        on_share: Callable[[int, Tensor], None] | None = None,
        kernel: Kernel | None = None,
    ) -> tuple[Tensor, Tensor]:
        from diffusers.models.embeddings import apply_rotary_emb

        num_text = encoder_hidden_states.shape[1]
        tokens = torch.cat([encoder_hidden_states, hidden_states], dim=1)
        query = attn.norm_q(_split_heads(attn.to_q(tokens), attn.heads))
        key = attn.norm_k(_split_heads(attn.to_k(tokens), attn.heads))
        value = _split_heads(attn.to_v(tokens), attn.heads)
        if image_rotary_emb is not None:
            # Motion tokens stay unrotated: they have no place in the grid.
            query, key = (
                torch.cat([x[:, :, :num_text], apply_rotary_emb(x[:, :, num_text:], image_rotary_emb)], dim=2)
                for x in (query, key)
            )
        attended = self._attend(query, key, value, num_text, motion, motion_bias, on_share, kernel)
        attended = attn.to_out[1](attn.to_out[0](attended.transpose(1, 2).flatten(2)))
        return attended[:, num_text:], attended[:, :num_text]

    # Attention kernels gain nothing from a compiler, and every layer and weighting would be compiled anew.
    @torch.compiler.disable
    def _attend(self, query, key, value, num_text, motion, motion_bias, on_share=None, kernel=None) -> Tensor:
        if motion is None:
            return _attend_by(kernel, query, key, value)
        motion_bias = float(motion_bias)
        if on_share is not None:
            on_share(self.layer, motion_share(query, key, num_text, motion[self.layer], motion_bias))
        return _attend_with_motion(query, key, value, num_text, motion[self.layer], motion_bias, kernel)


def with_motion_attention(transformer):
    """A transformer over the same weights whose layers accept motion tokens; the one given is left as it is."""
    twin = share_weights(transformer)
    for layer, block in enumerate(twin.transformer_blocks):
        block.attn1.set_processor(MotionAttention(layer))
    return twin


def project_motion(transformer, faes: Sequence[tuple[Tensor, float]]) -> list[LayerMotion] | None:
    """Keys and values of motion tokens in every layer, from pairs of tokens (layers, M, width) and strength.

    Strength is a weight on the tokens' share of the softmax: 0 is exactly no FAE, 1 is as trained, 2 counts each
    token twice. Several FAEs stand side by side, each with its own strength. None if no strength is above 0.
    The layers' own projections and key norm apply, adapters included; no position, no rotary (FlexiAct section 3.3).
    """
    active = [(tokens, strength) for tokens, strength in faes if strength > 0]
    if not active:
        return None
    tokens = torch.cat([tokens for tokens, _ in active], dim=1)
    log_weight = None
    if any(strength != 1 for _, strength in active):
        log_weight = torch.cat(
            [torch.full((part.shape[1],), math.log(strength), device=tokens.device) for part, strength in active]
        )
    motion = []
    for block, layer_tokens in zip(transformer.transformer_blocks, tokens, strict=True):
        attn = block.attn1
        key = attn.norm_k(_split_heads(attn.to_k(layer_tokens[None]), attn.heads))
        value = _split_heads(attn.to_v(layer_tokens[None]), attn.heads)
        motion.append(LayerMotion(key, value, log_weight))
    return motion


def motion_kwargs(
    motion: Sequence[LayerMotion] | None,
    bias: MotionBias,
    on_share: Callable[[int, Tensor], None] | None = None,
) -> Callable[[int], dict[str, Any]]:
    """For each timestep, the named arguments that carry the motion tokens and the weighting to the processors.

    None of them without motion tokens. on_share is as in MotionAttention.
    """
    if motion is None:
        return lambda timestep: {}
    asked = {} if on_share is None else {"on_share": on_share}

    def at(timestep: int) -> dict[str, Any]:
        # As a tensor: a compiler takes a number for a constant, and compiles anew where it changes.
        weight = torch.tensor(bias.at(timestep), dtype=torch.float64)
        return {"motion": motion, "motion_bias": weight, **asked}

    return at


def motion_share(query: Tensor, key: Tensor, num_text: int, motion: LayerMotion, motion_bias: float) -> Tensor:
    """The share (0..1, a scalar) of video tokens' attention that goes to the motion tokens.

    A mean over heads and over about SHARE_ROWS video tokens, evenly spaced, of the last batch entry, which is the
    one with the prompt. query and key are (B, H, N, D), the first num_text of them text.
    """
    own, motion_key = key[-1].float(), motion.key[0].float()
    step = max(1, (query.shape[2] - num_text) // SHARE_ROWS)
    rows = query[-1, :, num_text::step].float() * query.shape[-1] ** -0.5
    motion_logits = rows @ motion_key.mT + motion_bias
    if motion.log_weight is not None:
        motion_logits = motion_logits + motion.log_weight
    difference = motion_logits.logsumexp(-1) - (rows @ own.mT).logsumexp(-1)
    return difference.sigmoid().mean()


def _attend_by(kernel: Kernel | None, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return attend(query, key, value) if kernel is None else kernel(query, key, value)[0]


def _attend_with_motion(
    query, key, value, num_text: int, motion: LayerMotion, motion_bias: float, kernel: Kernel | None = None
) -> Tensor:
    if motion.log_weight is None and motion_bias == 0:
        return _attend_by(kernel, query, *_append(key, value, motion))
    torch_kernel = None if torch.is_grad_enabled() else _kernel_with_lse(query, key, value)
    if torch_kernel is None:
        return _attend_with_row_bias(query, key, value, num_text, motion, motion_bias)
    attended, lse = torch_kernel(query, key, value, None) if kernel is None else kernel(query, key, value)
    motion_key, motion_value = (x.expand(len(query), -1, -1, -1) for x in (motion.key, motion.value))
    motion_attended, motion_lse = torch_kernel(query, motion_key, motion_value, motion.log_weight)
    # The weighting is one number for all motion keys, so it only moves their log-sum-exp, and that of video rows alone.
    motion_lse[:, :, num_text:] += motion_bias
    share = torch.sigmoid(motion_lse - lse)
    return attended.lerp_(motion_attended, share.unsqueeze(-1).to(attended.dtype))


def _attend_with_row_bias(query, key, value, num_text: int, motion: LayerMotion, motion_bias: float) -> Tensor:
    """The same by attend() alone: for devices whose kernels keep their log-sum-exp, and where gradients are needed."""
    num_own, num_motion = key.shape[2], motion.key.shape[2]
    key, value = _append(key, value, motion)
    log_weight = motion.log_weight if motion.log_weight is not None else query.new_zeros(num_motion)
    text_bias = None if motion.log_weight is None else F.pad(log_weight, (num_own, 0))
    # Softmax rows are independent: the weighting concerns video queries only, so text rows run without it.
    text = attend(query[:, :, :num_text], key, value, text_bias)
    video = attend(query[:, :, num_text:], key, value, F.pad(log_weight + motion_bias, (num_own, 0)))
    return torch.cat([text, video], dim=2)


def _kernel_with_lse(query, key, value) -> Callable[..., tuple[Tensor, Tensor]] | None:
    """A kernel that computes attend() and the logarithm (B, H, Nq) of each row's softmax sum, in float32.

    It is the one that plain attention would run here, so that the weighting costs no slower one and a chosen backend
    is kept. None if that one keeps the logarithm to itself. Gradients do not pass the logarithm.
    """
    choice = torch._fused_sdp_choice(query, key, value)
    if choice == SDPBackend.MATH.value or query.shape[-1] % 8:
        return None
    if query.device.type == "cpu":
        return _flash_on_cpu
    if query.device.type == "cuda":
        return _CUDA_KERNELS.get(choice)
    return None


def _flash_on_cpu(query, key, value, key_bias: Tensor | None) -> tuple[Tensor, Tensor]:
    mask = None if key_bias is None else key_bias.to(query.dtype).expand(1, 1, 1, -1)
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value, attn_mask=mask)


def _efficient(query, key, value, key_bias: Tensor | None) -> tuple[Tensor, Tensor]:
    if key_bias is not None:
        # The kernel reads eight values at a time, also past the last one.
        padded = F.pad(key_bias.to(query.dtype), (0, -len(key_bias) % 8))
        key_bias = padded[: len(key_bias)].expand(*query.shape[:3], -1)
    attended, lse, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(query, key, value, key_bias, True)
    return attended, lse[:, :, : query.shape[2]]  # the kernel rounds the number of rows up


def _flash(query, key, value, key_bias: Tensor | None) -> tuple[Tensor, Tensor]:
    if key_bias is not None:
        return _efficient(query, key, value, key_bias)
    return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value)[:2]


def _cudnn(query, key, value, key_bias: Tensor | None) -> tuple[Tensor, Tensor]:
    if key_bias is not None:
        return _efficient(query, key, value, key_bias)
    attended, lse, *_ = torch.ops.aten._scaled_dot_product_cudnn_attention(query, key, value, None, True)
    return attended, lse.view(query.shape[:3])


_CUDA_KERNELS = {
    SDPBackend.FLASH_ATTENTION.value: _flash,
    SDPBackend.EFFICIENT_ATTENTION.value: _efficient,
    SDPBackend.CUDNN_ATTENTION.value: _cudnn,
}


def _append(key: Tensor, value: Tensor, motion: LayerMotion) -> tuple[Tensor, Tensor]:
    return _append_tokens(key, motion.key), _append_tokens(value, motion.value)


def _append_tokens(own: Tensor, motion: Tensor) -> Tensor:
    motion = motion.expand(len(own), -1, -1, -1)
    if motion.requires_grad:
        # cat hands its gradient back as a view, which would keep the gradient of all N + M keys of every layer alive
        # until the turn of the tokens' own projection, the last of a backward pass.
        motion.register_hook(torch.clone)
    return torch.cat([own, motion], dim=2)


def _split_heads(tokens: Tensor, heads: int) -> Tensor:
    return tokens.unflatten(-1, (heads, -1)).transpose(1, 2)
