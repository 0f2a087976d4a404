"""The denoising loop of AMG: DDIM, with the avatar given to both halves of guidance.

Shape letters: B batch, F frames, h w latent height and width, S text tokens, D text width.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import SettingError, ShapeError

NUM_TIMESTEPS = 1000


def make_scheduler():
    """The schedule that AMG was trained with and its DDIM: the last step goes to timestep 0, not to a clean video."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        num_train_timesteps=NUM_TIMESTEPS,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="epsilon",
        timestep_spacing="leading",
    )


def take_steps(scheduler, steps: int) -> list[int]:
    """The timesteps of a run of so many steps, 951, 901, ... 1 for 20; the scheduler is then set for them.

    Raises SettingError if steps is not in 1..1000.
    """
    if not 1 <= steps <= NUM_TIMESTEPS:
        raise SettingError(f"steps {steps}: between 1 and {NUM_TIMESTEPS} are possible.")
    scheduler.set_timesteps(steps, device="cpu")
    # With 1000 steps the offset of one would reach past the last timestep there is.
    scheduler.timesteps = scheduler.timesteps.clamp(max=NUM_TIMESTEPS - 1)
    return scheduler.timesteps.tolist()


def predict_noise(
    unet,
    noisy: Tensor,
    avatar: Tensor,
    timestep: int,
    text: Tensor,
    null_text: Tensor,
    *,
    cfg: float,
    batched: bool = True,
    between: Callable[[], None] = lambda: None,
) -> Tensor:
    """The guided noise (B, 4, F, h, w), float32, that the UNet sees in `noisy`.

    noisy and avatar are (B, 4, F, h, w); text and null_text (B, S, D), as long as they like. At cfg 1 null_text has
    no effect and is not computed. batched computes both halves at once; else `between` is called between them, and
    may raise to stop. Source: classifier-free guidance, null + cfg * (text - null).
    """
    model_input = torch.cat([noisy.float(), avatar.float()], dim=1).to(text.dtype)
    if cfg == 1.0:
        return _forward(unet, model_input, timestep, text)
    if batched:
        both = torch.cat(_same_length(null_text, text))
        negative, positive = _forward(unet, torch.cat([model_input, model_input]), timestep, both).chunk(2)
    else:
        negative = _forward(unet, model_input, timestep, null_text)
        between()
        positive = _forward(unet, model_input, timestep, text)
    return negative + cfg * (positive - negative)


@torch.no_grad()
def sample_avatar_video(
    unet,
    noise: Tensor,
    avatar: Tensor,
    text: Tensor,
    null_text: Tensor,
    *,
    steps: int = 20,
    cfg: float = 3.0,
    batched: bool = True,
    on_step: Callable[[int, Tensor], None] | None = None,
    between: Callable[[], None] = lambda: None,
) -> Tensor:
    """Denoised latents (B, 4, F, h, w), float32, on the device of `noise`, scaled as the VAE's.

    noise and avatar are (B, 4, F, h, w); the avatar's latents stay clean at every step. text and null_text are
    (B, S, D) and say in which dtype the UNet computes. on_step is called after each step with its index and the
    clean latents predicted there; on_step and between may raise to stop.
    Raises SettingError as take_steps() does, ShapeError if the shapes of noise and avatar differ.
    Source: AMG's release, DDIM with eta 0.
    """
    if noise.shape != avatar.shape:
        raise ShapeError(
            f"avatar: latents {list(avatar.shape)} found, {list(noise.shape)} needed. Use one size and one number of "
            "frames for the avatar and the video."
        )
    scheduler = make_scheduler()
    latents = noise.float()
    for index, timestep in enumerate(take_steps(scheduler, steps)):
        predicted = predict_noise(
            unet, latents, avatar, timestep, text, null_text, cfg=cfg, batched=batched, between=between
        )
        latents, clean = scheduler.step(predicted, timestep, latents, eta=0.0, return_dict=False)
        if on_step is not None:
            on_step(index, clean)
    return latents


def _forward(unet, model_input: Tensor, timestep: int, text: Tensor) -> Tensor:
    times = torch.full((len(model_input),), timestep, device=model_input.device)
    return unet(model_input, times, encoder_hidden_states=text, return_dict=False)[0].float()


def _same_length(first: Tensor, second: Tensor) -> list[Tensor]:
    """Both texts as long as the other: a text said twice gets the same attention as one said once."""
    length = math.lcm(first.shape[1], second.shape[1])
    return [text.repeat(1, length // text.shape[1], 1) for text in (first, second)]
