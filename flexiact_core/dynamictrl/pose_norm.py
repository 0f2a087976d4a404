"""The pose stream: pose tokens that run beside the video tokens, are normed in every layer, and are added there.

What a layer adds depends on the poses and the timestep alone, never on text or video. So both halves of guidance share
one stream; it is made layer after layer, and one layer of it is held at a time.

Shape letters: B batch, L latent frames, C channels, h w latent height and width, N video tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..cogvideox.family import family_of
from ..errors import FileError, SettingError

STRENGTHS = (0.0, 2.0)


def check_takes_poses(transformer) -> None:
    """Passes if the transformer is DynamiCtrl's. Raises FileError otherwise, naming what to load."""
    if not family_of(transformer.config).pose_norms:
        raise FileError(
            "This is a plain CogVideoX base: it has no pose norms, so it cannot follow poses. Load DynamiCtrl in Load "
            "CogVideoX I2V: hf download gulucaptain/DynamiCtrl --local-dir models/CogVideo/DynamiCtrl"
        )


def check_strength(strength: float) -> None:
    """Passes for a strength in 0..2. Raises SettingError otherwise."""
    if not STRENGTHS[0] <= strength <= STRENGTHS[1]:
        raise SettingError(f"pose strength {strength}: between {STRENGTHS[0]:g} and {STRENGTHS[1]:g} are possible.")


def check_window(start_percent: float, end_percent: float) -> None:
    """Passes if 0 <= start < end <= 100. Raises SettingError otherwise."""
    if not 0 <= start_percent < end_percent <= 100:
        raise SettingError(
            f"pose start {start_percent:g} and end {end_percent:g}: percent of the steps, the start before the end."
        )


def pose_tokens(transformer, pose_latents: Tensor) -> Tensor:
    """Tokens (B, N, D) of pose latents (B, L, C, h, w), scaled as the video's are, through the patches of the video.

    The poses stand in both places, that of the noisy video and that of the picture.
    Source: DynamiCtrl, transformer_dynamictrl.py.
    """
    no_text = pose_latents.new_zeros(len(pose_latents), 0, transformer.config.text_embed_dim)
    return transformer.patch_embed(no_text, torch.cat([pose_latents, pose_latents], dim=2))


def time_embedding(transformer, timestep: Tensor, ofs: float | None, dtype: torch.dtype) -> Tensor:
    """What the transformer's layers are told of timesteps (B,) in 0..999 and of ofs: (B, time_embed_dim)."""
    embedded = transformer.time_embedding(transformer.time_proj(timestep).to(dtype))
    if ofs is None:
        return embedded
    ofs_number = torch.full((1,), ofs, device=timestep.device)
    return embedded + transformer.ofs_embedding(transformer.ofs_proj(ofs_number).to(dtype))


def norm_pose(pose_norm, tokens: Tensor, temb: Tensor) -> tuple[Tensor, Tensor]:
    """What a layer adds (B, N, D), and the gate (B, 1, D), of the pose tokens that come to it.

    pose_norm is the layer's, tokens (B, N, D), temb (B, time_embed_dim); either may have one entry for all.
    Source: DynamiCtrl, PoseAdaptiveLayerNorm.
    """
    shift, scale, gate = pose_norm["linear"](F.silu(temb)).unsqueeze(1).chunk(3, dim=-1)
    normed = pose_norm["norm"](tokens)
    if len(normed) < len(temb):
        return torch.addcmul(shift, normed, 1 + scale), gate
    # In place: one more tensor of this size would be the largest thing that poses hold.
    return normed.mul_(1 + scale).add_(shift), gate


class PoseStream:
    """What the poses add to each layer in one step; one layer of it is held.

    `at` gives it times strength; the stream itself goes on at full strength. Layers come in their order; an earlier
    one, or a later one past skipped ones, is computed from the start, to the same values.
    """

    def __init__(self, blocks, tokens: Tensor, temb: Tensor, strength: float = 1.0):
        self.blocks, self.tokens, self.temb, self.strength = blocks, tokens, temb, strength
        self.layer, self.added, self.gate = -1, None, None

    def at(self, layer: int) -> Tensor:
        """(B, N, D) for this layer."""
        if layer < self.layer:
            self.layer, self.added, self.gate = -1, None, None
        while self.layer < layer:
            # No residual: the next layer gets what this one added, and that again times its gate.
            coming = self.tokens if self.added is None else torch.addcmul(self.added, self.added, self.gate)
            self.added = None
            self.layer += 1
            self.added, self.gate = norm_pose(self.blocks[self.layer].control_norm1, coming, self.temb)
        return self.added if self.strength == 1 else self.added * self.strength


def pose_kwargs(
    transformer, tokens: Tensor, ofs: float | None, strength: float = 1.0, active: Collection[int] | None = None
) -> Callable[[int], dict[str, Any]]:
    """For each timestep (999..0), the named arguments that carry the poses to attention.

    tokens are those of pose_tokens(). None of them where strength is 0 or the timestep is not among `active`.
    Raises SettingError as check_strength() does.
    """
    check_strength(strength)
    blocks = transformer.transformer_blocks

    def at(timestep: int) -> dict[str, Any]:
        if strength == 0 or (active is not None and timestep not in active):
            return {}
        now = torch.full((1,), timestep, device=tokens.device)
        return {"pose": PoseStream(blocks, tokens, time_embedding(transformer, now, ofs, tokens.dtype), strength)}

    return at


def steps_between(timesteps: list[int], start_percent: float, end_percent: float) -> frozenset[int]:
    """The timesteps of a run's steps from start_percent on and before end_percent of it; 0 and 100 are all.

    Raises SettingError as check_window() does.
    """
    check_window(start_percent, end_percent)
    share = {timestep: 100 * index / len(timesteps) for index, timestep in enumerate(timesteps)}
    return frozenset(timestep for timestep, percent in share.items() if start_percent <= percent < end_percent)
