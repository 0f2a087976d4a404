"""Action transfer: pictures, an action, and a base, made into the latents of videos."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..cogvideox.model import CogVideoXI2V, Posterior
from ..cogvideox.sampling import Run, sample, start_latents
from .bias import PAPER_BIAS, MotionBias
from .fae import FAE, check_fae
from .processor import motion_kwargs, project_motion, with_motion_attention
from .refadapter import RefAdapter, with_refadapters


@torch.no_grad()
def transfer_action(
    base: CogVideoXI2V,
    image: Posterior,
    prompt_embeds: Tensor,
    negative_embeds: Tensor,
    run: Run,
    *,
    faes: Sequence[tuple[FAE, float]] = (),
    adapters: Sequence[tuple[RefAdapter, float]] = (),
    bias: MotionBias = PAPER_BIAS,
    on_share: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """Latents (B, L, C, h, w) of the run's videos, in which B pictures perform the actions.

    image is the VAE's posterior of the pictures (B, 1, C, h, w), the embeddings are (B, S, D); faes and adapters come
    with their strength and weight. The base's transformer is on the run's device and left as it is. A seed fixes the
    picture's sample, the first noise and the noise of all steps, on any device, whatever else is in the batch.
    on_share is called in each step, before the run's on_step, with every layer that is computed and the share (0..1, a
    scalar) of attention that motion tokens get there, in the last video; asking for it does not change the videos.
    Without faes this is CogVideoX image-to-video.
    Raises SettingError and FileError as sample(), check_fae() and check_refadapter() do.
    Source: FlexiAct section 3.
    """
    for fae, _ in faes:
        check_fae(fae, base.transformer)
    noise, condition, generators = start_latents(base, image, run)
    device, dtype = run.device, base.dtype
    transformer = with_refadapters(base.transformer, adapters, device, dtype)
    motion = project_motion(transformer, [(fae.tokens.to(device, dtype), strength) for fae, strength in faes])
    latents = sample(
        with_motion_attention(transformer),
        base.scheduler_config,
        noise,
        condition,
        prompt_embeds.to(device, dtype),
        negative_embeds.to(device, dtype),
        run,
        generators=generators,
        attention_kwargs=motion_kwargs(motion, bias, on_share),
    )
    return latents[:, base.family.count_padding(run.num_frames) :]
