"""The training loss of CogVideoX image-to-video.

Shape letters: B batch, L latent frames, C channels, h w latent height and width, S text tokens, D width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .model import pad_image_latents
from .predict import make_predict


def denoising_loss(
    transformer,
    scheduler,
    video_latents: Tensor,
    image_latents: Tensor,
    noise: Tensor,
    timesteps: Tensor,
    prompt_embeds: Tensor,
    *,
    attention_kwargs: Mapping[str, Any] | None = None,
    debias_frames: Tensor | None = None,
) -> Tensor:
    """The training loss, a float32 scalar: the error of the predicted clean latents, weighted by 1 / (1 - abar).

    video_latents and noise are (B, L, C, h, w), image_latents (B, 1, C, h, w), timesteps (B,) in 0..999, embeddings
    (B, S, D); attention_kwargs are the attention processors' named arguments. With debias_frames (B,), the index of
    one latent frame per sample, the debiased motion loss is added, unweighted: the error of sqrt(2) * z[i+1] - z[i].
    Source: FlexiAct section 3.3; Motion Inversion for the debiased term.
    """
    device = video_latents.device
    noisy = scheduler.add_noise(video_latents, noise, timesteps)
    condition = pad_image_latents(image_latents, video_latents.shape[1])
    predict = make_predict(transformer, noisy.shape, device)
    velocity = predict(noisy, condition, prompt_embeds, timesteps, attention_kwargs)
    predicted = scheduler.get_velocity(velocity, noisy, timesteps)
    error = (predicted - video_latents).square().flatten(1).mean(1)
    abar = scheduler.alphas_cumprod.to(device)[timesteps]
    loss = error / (1 - abar)
    if debias_frames is not None:
        motion_error = _motion(predicted, debias_frames) - _motion(video_latents, debias_frames)
        loss = loss + motion_error.square().flatten(1).mean(1)
    return loss.mean().float()


def _motion(latents: Tensor, frames: Tensor) -> Tensor:
    rows = torch.arange(len(latents), device=latents.device)
    return math.sqrt(2) * latents[rows, frames + 1] - latents[rows, frames]
