"""Attention of one layer, on diffusers' own modules, with what a run adds to the layer by name.

Shape letters: B batch, H heads, S text tokens, N video tokens, D width, d head width.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from einops import rearrange
from torch import Tensor

from ..errors import SettingError
from ..kernels import Kernel, attend
from ..modules import share_weights

if TYPE_CHECKING:
    from diffusers import CogVideoXTransformer3DModel
    from diffusers.models.attention_processor import Attention


class LayerAddition(Protocol):
    """What is added to the video tokens of each layer before its attention, made when the layer comes."""

    def at(self, layer: int) -> Tensor:
        """(1 or B, N, D) for this layer; layers are asked for in their order."""
        ...


@dataclass(frozen=True, eq=False)
class Conditioned:
    """A transformer made ready for what acts on it in a run, and what its attention is then told at each timestep.

    kwargs gives the attention processors' named arguments at a timestep (999..0).
    """

    transformer: Any
    kwargs: Callable[[int], dict[str, Any]] = lambda timestep: {}


class VideoAttention:
    """diffusers attention processor of one CogVideoX layer: what the stock one computes, with what is named.

    Called through transformer(..., attention_kwargs={"pose": ..., "kernel": ...}). pose is added to the video tokens
    that attention reads, text and residuals are without it; kernel, if given, attends in place of torch's.
    """

    def __init__(self, layer: int):
        self.layer = layer

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
        pose: LayerAddition | None = None,
        kernel: Kernel | None = None,
    ) -> tuple[Tensor, Tensor]:
        hidden_states = add_pose(hidden_states, pose, self.layer)
        query, key, value = project(attn, hidden_states, encoder_hidden_states, image_rotary_emb)
        return merge(attn, _attend(kernel, query, key, value), encoder_hidden_states.shape[1])


def with_video_attention(transformer: CogVideoXTransformer3DModel) -> CogVideoXTransformer3DModel:
    """A transformer over the same weights whose layers take what VideoAttention takes; the one given stays as it is."""
    twin = share_weights(transformer)
    for layer, block in enumerate(twin.transformer_blocks):
        block.attn1.set_processor(VideoAttention(layer))
    return twin


def with_kernel_attention(transformer: CogVideoXTransformer3DModel) -> CogVideoXTransformer3DModel:
    """A transformer over the same weights whose layers take the named argument `kernel`; the one given stays as it is.

    Processors that take it already are kept, stock ones make room for VideoAttention.
    Raises SettingError if a layer attends by something else.
    """
    from diffusers.models.attention_processor import CogVideoXAttnProcessor2_0

    twin = share_weights(transformer)
    for layer, block in enumerate(twin.transformer_blocks):
        processor = block.attn1.processor
        if "kernel" in inspect.signature(processor.__call__).parameters:
            continue
        if not isinstance(processor, CogVideoXAttnProcessor2_0):
            raise SettingError(
                f"attention: this base attends by {type(processor).__name__}, which takes no other kernel. Choose auto."
            )
        block.attn1.set_processor(VideoAttention(layer))
    return twin


def add_pose(hidden_states: Tensor, pose: LayerAddition | None, layer: int) -> Tensor:
    """Video tokens (B, N, D) with what `pose` adds in this layer; unchanged without it."""
    return hidden_states if pose is None else hidden_states + _at(pose, layer)


def project(
    attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor, rotary: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value (B, H, S + N, d) of text and video tokens, text first; rotary positions on video alone."""
    from diffusers.models.embeddings import apply_rotary_emb

    num_text = encoder_hidden_states.shape[1]
    tokens = torch.cat([encoder_hidden_states, hidden_states], dim=1)
    query = attn.norm_q(split_heads(attn.to_q(tokens), attn.heads))
    key = attn.norm_k(split_heads(attn.to_k(tokens), attn.heads))
    value = split_heads(attn.to_v(tokens), attn.heads)
    if rotary is not None:
        query, key = (
            torch.cat([x[:, :, :num_text], apply_rotary_emb(x[:, :, num_text:], rotary)], dim=2) for x in (query, key)
        )
    return query, key, value


def merge(attn: Attention, attended: Tensor, num_text: int) -> tuple[Tensor, Tensor]:
    """What attention gives back to the block, video (B, N, D) and text (B, S, D), from heads (B, H, S + N, d)."""
    tokens = attn.to_out[1](attn.to_out[0](rearrange(attended, "b h n d -> b n (h d)")))
    return tokens[:, num_text:], tokens[:, :num_text]


def split_heads(tokens: Tensor, heads: int) -> Tensor:
    """(B, H, N, d) of tokens (B, N, H * d)."""
    return rearrange(tokens, "b n (h d) -> b h n d", h=heads)


# A compiler would compile every layer anew for what it finds in here: another object, another layer, another kernel.
@torch.compiler.disable
def _at(pose: LayerAddition, layer: int) -> Tensor:
    return pose.at(layer)


@torch.compiler.disable
def _attend(kernel: Kernel | None, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return attend(query, key, value, kernel=kernel)
