"""The denoising loop of CogVideoX image-to-video."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import SettingError
from .acceleration import EXACT, Acceleration, accelerate
from .model import for_num_latent_frames, rotary_positions

SchedulerName = Literal["DPM", "DDIM"]


def make_scheduler(config: Mapping[str, Any], name: SchedulerName):
    """A diffusers scheduler with the base's noise schedule, its timesteps spaced from the noisy end."""
    from diffusers import CogVideoXDDIMScheduler, CogVideoXDPMScheduler

    classes = {"DPM": CogVideoXDPMScheduler, "DDIM": CogVideoXDDIMScheduler}
    if name not in classes:
        raise SettingError(f"scheduler '{name}': choose one of {', '.join(classes)}.")
    return classes[name].from_config(dict(config), timestep_spacing="trailing")


def take_steps(scheduler, steps: int) -> list[int]:
    """The timesteps (999..0) of a run of so many steps, for which the scheduler is then set.

    Raises SettingError if steps is not in 1..1000.
    """
    possible = scheduler.config.num_train_timesteps
    if not 1 <= steps <= possible:
        raise SettingError(f"steps {steps}: between 1 and {possible} are possible.")
    scheduler.set_timesteps(steps, device="cpu")
    return scheduler.timesteps.tolist()


@torch.no_grad()
def sample(
    transformer,
    scheduler,
    latents: Tensor,
    image_latents: Tensor,
    prompt_embeds: Tensor,
    negative_embeds: Tensor,
    *,
    steps: int,
    cfg: float,
    generator: torch.Generator | None = None,
    attention_kwargs: Callable[[int], dict[str, Any]] | None = None,
    acceleration: Acceleration = EXACT,
    on_step: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """Denoised latents (1, L, C, h, w), float32, on the device of `latents`.

    latents is noise and image_latents the condition, both (1, L, C, h, w); the embeddings are (1, S, D).
    attention_kwargs gives the attention processors' named arguments at a timestep (999..0). on_step is called after
    each step with its index and the clean latents predicted there; it may raise to stop. At cfg 1 the negative
    prompt has no effect and is not computed.
    Raises SettingError as take_steps() and accelerate() do.
    Source: CogVideoX image-to-video, diffusers' CogVideoXImageToVideoPipeline.
    """
    timesteps = take_steps(scheduler, steps)
    device, dtype = latents.device, prompt_embeds.dtype
    guided = cfg != 1.0
    prompts = torch.cat([negative_embeds, prompt_embeds]) if guided else prompt_embeds
    num_latent_frames, (height, width) = latents.shape[1], latents.shape[-2:]
    rotary = rotary_positions(transformer.config, num_latent_frames, height, width)
    if rotary is not None:
        rotary = tuple(table.to(device) for table in rotary)
    transformer = for_num_latent_frames(transformer, num_latent_frames)
    predict = accelerate(transformer, acceleration, like=prompt_embeds)

    latents = latents.float() * scheduler.init_noise_sigma
    image_latents = image_latents.to(device, torch.float32)
    previous_clean = None
    for index, timestep in enumerate(timesteps):
        model_input = torch.cat([scheduler.scale_model_input(latents, timestep), image_latents], dim=2).to(dtype)
        velocity = predict(
            hidden_states=model_input.expand(len(prompts), -1, -1, -1, -1),
            encoder_hidden_states=prompts,
            timestep=torch.full((len(prompts),), timestep, device=device),
            image_rotary_emb=rotary,
            attention_kwargs=attention_kwargs(timestep) if attention_kwargs else None,
        ).float()
        if guided:
            negative, positive = velocity.chunk(2)
            velocity = negative + cfg * (positive - negative)
        if type(scheduler).__name__ == "CogVideoXDPMScheduler":
            timestep_back = timesteps[index - 1] if index else None
            latents, previous_clean = scheduler.step(
                velocity, previous_clean, timestep, timestep_back, latents, generator=generator
            )
        else:
            latents, previous_clean = scheduler.step(velocity, timestep, latents, return_dict=False)
        if on_step is not None:
            on_step(index, previous_clean)
    return latents
