"""Attention in which video and text also read learned motion tokens.

Motion tokens are keys and values only: their own rows would be thrown away, and they depend neither on the timestep
nor on the video. So they are projected once per run, and no N x N mask is needed for their bias.

Shape letters: B batch, H heads, N tokens, M motion tokens, D head width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..cogvideox.processor import LayerAddition, add_pose, merge, project, split_heads
from ..kernels import Kernel, attend
from ..modules import share_weights
from .bias import MotionBias
from .motion import (
    KeyValueOf,
    LayerMotion,
    attend_with_motion,
    motion_share,
    project_tokens,
)

if TYPE_CHECKING:
    from diffusers import CogVideoXTransformer3DModel
    from diffusers.models.attention_processor import Attention


class MotionAttention:
    """diffusers attention processor of one CogVideoX layer that reads the layer's motion tokens.

    Called through transformer(..., attention_kwargs={"motion": ..., "bias": b}): motion holds a LayerMotion
    for every layer, bias (a number, or a tensor of one) is added to the logits of (video query, motion key).
    Without motion it computes what the stock processor does. on_share, if given, is called with the layer and its
    motion_share(). kernel, if given, attends in place of torch's; it has no gradients. pose is as in VideoAttention:
    an action and poses meet in one run.
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
        motion: Sequence[LayerMotion] | None = None,
        bias: float | Tensor = 0.0,
        on_share: Callable[[int, Tensor], None] | None = None,
        kernel: Kernel | None = None,
        pose: LayerAddition | None = None,
    ) -> tuple[Tensor, Tensor]:
        num_text = encoder_hidden_states.shape[1]
        hidden_states = add_pose(hidden_states, pose, self.layer)
        # Motion tokens stay unrotated: they have no place in the grid.
        query, key, value = project(attn, hidden_states, encoder_hidden_states, image_rotary_emb)
        attended = self._attend(query, key, value, num_text, motion, bias, on_share, kernel)
        return merge(attn, attended, num_text)

    # Attention kernels gain nothing from a compiler, and every layer and bias would be compiled anew.
    @torch.compiler.disable
    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        num_text: int,
        motion: Sequence[LayerMotion] | None,
        bias: float | Tensor,
        on_share: Callable[[int, Tensor], None] | None = None,
        kernel: Kernel | None = None,
    ) -> Tensor:
        if motion is None:
            return attend(query, key, value, kernel=kernel)
        bias = float(bias)
        if on_share is not None:
            on_share(self.layer, motion_share(query, key, num_text, motion[self.layer], bias))
        return attend_with_motion(query, key, value, num_text, motion[self.layer], bias, kernel)


def with_motion_attention(transformer: CogVideoXTransformer3DModel) -> CogVideoXTransformer3DModel:
    """A transformer over the same weights whose layers accept motion tokens; the one given is left as it is."""
    twin = share_weights(transformer)
    for layer, block in enumerate(twin.transformer_blocks):
        block.attn1.set_processor(MotionAttention(layer))
    return twin


def project_motion(
    transformer: CogVideoXTransformer3DModel, faes: Sequence[tuple[Tensor, float]]
) -> list[LayerMotion] | None:
    """Keys and values of motion tokens in every layer, from pairs of tokens (layers, M, width) and strength.

    Strength and the layers' projections are as in project_tokens(). None if no strength is above 0.
    """
    return project_tokens((_keys_and_values(block.attn1) for block in transformer.transformer_blocks), faes)


def _keys_and_values(attn) -> KeyValueOf:
    return KeyValueOf(
        lambda tokens: attn.norm_k(split_heads(attn.to_k(tokens), attn.heads)),
        lambda tokens: split_heads(attn.to_v(tokens), attn.heads),
    )


def motion_kwargs(
    motion: Sequence[LayerMotion] | None,
    bias: MotionBias,
    on_share: Callable[[int, Tensor], None] | None = None,
) -> Callable[[int], dict[str, Any]]:
    """For each timestep, the named arguments that carry the motion tokens and the bias to the processors.

    None of them without motion tokens. on_share is as in MotionAttention.
    """
    if motion is None:
        return lambda timestep: {}
    asked = {} if on_share is None else {"on_share": on_share}

    def at(timestep: int) -> dict[str, Any]:
        # As a tensor: a compiler takes a number for a constant, and compiles anew where it changes.
        return {"motion": motion, "bias": torch.tensor(bias.at(timestep), dtype=torch.float64), **asked}

    return at
