"""The training loss of CogVideoX image-to-video.

Shape letters: B batch, L latent frames, C channels, h w latent height and width, S text tokens, D width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .model import pad_image_latents
from .predict import make_predict

if TYPE_CHECKING:
    from diffusers import CogVideoXDDIMScheduler, CogVideoXDPMScheduler, CogVideoXTransformer3DModel


@dataclass(frozen=True, eq=False)
class Batch:
    """What one training step is taken on, all on one device.

    video_latents and noise are (B, L, C, h, w), image_latents (B, 1, C, h, w), timesteps (B,) in 0..999, embeddings
    (B, S, D). With debias_frames (B,), the index of one latent frame per sample, its motion is learned debiased, too.
    """

    video_latents: Tensor
    image_latents: Tensor
    noise: Tensor
    timesteps: Tensor
    prompt_embeds: Tensor
    debias_frames: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        return self._each(lambda value: value.to(device))

    def part(self, rows: slice) -> Batch:
        """Some of the samples."""
        return self._each(lambda value: value[rows])

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return Batch(**{name: None if value is None else change(value) for name, value in values.items()})


def denoising_loss(
    transformer: CogVideoXTransformer3DModel,
    scheduler: CogVideoXDPMScheduler | CogVideoXDDIMScheduler,
    batch: Batch,
    attention_kwargs: Mapping[str, Any] | None = None,
) -> Tensor:
    """The training loss, a float32 scalar: the error of the predicted clean latents, weighted by 1 / (1 - abar).

    attention_kwargs are the attention processors' named arguments. With debias_frames the debiased motion loss is
    added, unweighted: the error of sqrt(2) * z[i+1] - z[i].
    Source: FlexiAct section 3.3; Motion Inversion for the debiased term.
    """
    latents, timesteps = batch.video_latents, batch.timesteps
    noisy = scheduler.add_noise(latents, batch.noise, timesteps)
    condition = pad_image_latents(batch.image_latents, latents.shape[1])
    predict = make_predict(transformer, noisy.shape, latents.device)
    velocity = predict(noisy, condition, batch.prompt_embeds, timesteps, attention_kwargs)
    predicted = scheduler.get_velocity(velocity, noisy, timesteps)
    error = (predicted - latents).square().flatten(1).mean(1)
    abar = scheduler.alphas_cumprod.to(latents.device)[timesteps]
    loss = error / (1 - abar)
    if batch.debias_frames is not None:
        motion_error = _motion(predicted, batch.debias_frames) - _motion(latents, batch.debias_frames)
        loss = loss + motion_error.square().flatten(1).mean(1)
    return loss.mean().float()


def _motion(latents: Tensor, frames: Tensor) -> Tensor:
    rows = torch.arange(len(latents), device=latents.device)
    return math.sqrt(2) * latents[rows, frames + 1] - latents[rows, frames]
