"""Action transfer: a picture, an action, and a base, made into the latents of a video."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..cogvideox.acceleration import EXACT, Acceleration
from ..cogvideox.model import CogVideoXI2V, Posterior, pad_image_latents, sample_posterior
from ..cogvideox.sampling import SchedulerName, make_scheduler, sample
from .bias import MotionBias
from .fae import FAE, check_fae
from .processor import motion_kwargs, project_motion, with_motion_attention
from .refadapter import RefAdapter, with_refadapters


@torch.no_grad()
def transfer_action(
    base: CogVideoXI2V,
    image: Posterior,
    prompt_embeds: Tensor,
    negative_embeds: Tensor,
    *,
    faes: Sequence[tuple[FAE, float]],
    adapters: Sequence[tuple[RefAdapter, float]],
    bias: MotionBias,
    num_frames: int,
    steps: int,
    cfg: float,
    scheduler: SchedulerName,
    seed: int,
    device: torch.device,
    acceleration: Acceleration = EXACT,
    on_step: Callable[[int, Tensor], None] | None = None,
    on_share: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """Latents (1, L, C, h, w) of a video of num_frames in which the picture performs the actions.

    image is the VAE's posterior of the picture, the embeddings are (1, S, D); faes and adapters come with their
    strength and weight. The base's transformer is on `device` and left as it is. One seed fixes the picture's
    sample, the first noise and the noise of all steps, on any device. on_step is as in sample().
    on_share is called in each step, before on_step, with every layer that is computed and the share (0..1, a scalar)
    of attention that motion tokens get there; asking for it does not change the video.
    Without faes this is CogVideoX image-to-video.
    Raises SettingError and FileError as sample(), check_fae() and check_refadapter() do.
    Source: FlexiAct section 3.
    """
    for fae, _ in faes:
        check_fae(fae, base.transformer)
    generator = torch.Generator().manual_seed(seed)
    image_latent = sample_posterior(image, base.vae.config.scaling_factor, generator)
    image_latents = pad_image_latents(image_latent, base.family.count_latent_frames(num_frames))
    noise = torch.randn(image_latents.shape, generator=generator)

    transformer = with_refadapters(base.transformer, adapters, device, base.dtype)
    motion = project_motion(transformer, [(fae.tokens.to(device, base.dtype), strength) for fae, strength in faes])
    return sample(
        with_motion_attention(transformer),
        make_scheduler(base.scheduler_config, scheduler),
        noise.to(device),
        image_latents.to(device),
        prompt_embeds.to(device, base.dtype),
        negative_embeds.to(device, base.dtype),
        steps=steps,
        cfg=cfg,
        generator=generator,
        attention_kwargs=motion_kwargs(motion, bias, on_share),
        acceleration=acceleration,
        on_step=on_step,
    )
