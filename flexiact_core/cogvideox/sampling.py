"""Denoising runs of CogVideoX image-to-video.

Shape letters: B batch, L latent frames, C channels, h w latent height and width, S text tokens, D text width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from ..errors import SettingError
from .acceleration import EXACT, Acceleration, accelerate
from .family import COGVIDEOX_1_0
from .model import CogVideoXI2V, Posterior, condition_scale, for_num_latent_frames, pad_image_latents, sample_posterior
from .predict import make_predict

if TYPE_CHECKING:
    from diffusers import CogVideoXDDIMScheduler, CogVideoXDPMScheduler, CogVideoXTransformer3DModel

SchedulerName = Literal["DPM", "DDIM"]
# Called after each step with its index and the clean latents (B, L, C, h, w) predicted there; may raise to stop.
OnSample = Callable[[int, Tensor], None]
# The velocity of latents at a timestep.
Denoise = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True)
class Run:
    """How a denoising run is done: the values that always travel together.

    num_frames is what the base's family allows. cfg is the guidance: at 1 the negative prompt has no effect and is not
    computed. seed fixes all randomness; a tuple gives each video of a batch a seed of its own, a number gives it to
    all. on_step is called after each step with its index and the clean latents predicted there; it may raise to stop.
    """

    num_frames: int
    device: torch.device
    steps: int = COGVIDEOX_1_0.steps
    cfg: float = COGVIDEOX_1_0.cfg
    scheduler: SchedulerName = "DPM"
    seed: int | tuple[int, ...] = 0
    acceleration: Acceleration = EXACT
    on_step: OnSample | None = None

    def make_generators(self, count: int) -> list[torch.Generator]:
        """A random generator on the CPU, the same on any machine, for each of `count` videos."""
        seeds = self.seed if isinstance(self.seed, tuple) else (self.seed,) * count
        if len(seeds) != count:
            raise SettingError(f"seed: {len(seeds)} seeds given for {count} videos. Give one, or one for each.")
        return [torch.Generator().manual_seed(seed) for seed in seeds]


def sample_dpm(
    scheduler: CogVideoXDPMScheduler | CogVideoXDDIMScheduler,
    latents: Tensor,
    denoise: Denoise,
    generators: Sequence[torch.Generator],
    on_step: OnSample,
) -> Tensor:
    """Clean latents of noise, by CogVideoX's DPM-Solver++, which adds fresh noise in each step.

    Source: diffusers' CogVideoXDPMScheduler.
    """
    timesteps, clean = scheduler.timesteps.tolist(), None
    for index, timestep in enumerate(timesteps):
        timestep_back = timesteps[index - 1] if index else None
        latents, clean = scheduler.step(
            denoise(latents, timestep), clean, timestep, timestep_back, latents, generator=generators
        )
        on_step(index, clean)
    return latents


def sample_ddim(
    scheduler: CogVideoXDPMScheduler | CogVideoXDDIMScheduler,
    latents: Tensor,
    denoise: Denoise,
    generators: Sequence[torch.Generator],
    on_step: OnSample,
) -> Tensor:
    """Clean latents of noise, by DDIM, which adds none. Source: diffusers' CogVideoXDDIMScheduler."""
    for index, timestep in enumerate(scheduler.timesteps.tolist()):
        latents, clean = scheduler.step(denoise(latents, timestep), timestep, latents, return_dict=False)
        on_step(index, clean)
    return latents


# By the name of a choice: diffusers' class of the noise schedule, and the function that takes its steps.
SAMPLERS: dict[SchedulerName, tuple[str, Callable[..., Tensor]]] = {
    "DPM": ("CogVideoXDPMScheduler", sample_dpm),
    "DDIM": ("CogVideoXDDIMScheduler", sample_ddim),
}


def make_scheduler(config: Mapping[str, Any], name: SchedulerName) -> CogVideoXDPMScheduler | CogVideoXDDIMScheduler:
    """A diffusers scheduler with the base's noise schedule, its timesteps spaced from the noisy end.

    Raises SettingError if SAMPLERS has no such name.
    """
    import diffusers

    if name not in SAMPLERS:
        raise SettingError(f"scheduler '{name}': choose one of {', '.join(SAMPLERS)}.")
    return getattr(diffusers, SAMPLERS[name][0]).from_config(dict(config), timestep_spacing="trailing")


def take_steps(scheduler: CogVideoXDPMScheduler | CogVideoXDDIMScheduler, steps: int) -> list[int]:
    """The timesteps (999..0) of a run of so many steps, for which the scheduler is then set.

    Raises SettingError if steps is not in 1..1000.
    """
    possible = scheduler.config.num_train_timesteps
    if not 1 <= steps <= possible:
        raise SettingError(f"steps {steps}: between 1 and {possible} are possible.")
    scheduler.set_timesteps(steps, device="cpu")
    # diffusers spaces them by floating point: for 62 numbers of steps, as 61, that gives one more, -1.
    scheduler.timesteps = scheduler.timesteps[:steps]
    return scheduler.timesteps.tolist()


def start_latents(base: CogVideoXI2V, image: Posterior, run: Run) -> tuple[Tensor, Tensor, list[torch.Generator]]:
    """What a run starts from: noise and condition, both (B, L, C, h, w) on the CPU, and the generators to go on with.

    image is the posterior of B pictures, (B, 1, C, h, w). L fills whole patches.
    """
    num_latent_frames = base.family.count_latent_frames(run.num_frames)
    generators = run.make_generators(len(image.mean))
    conditions, noises = [], []
    for row, generator in enumerate(generators):
        one = Posterior(image.mean[row : row + 1], image.std[row : row + 1])
        latent = sample_posterior(one, condition_scale(base.vae), generator)
        conditions.append(pad_image_latents(latent, num_latent_frames))
        noises.append(torch.randn(conditions[-1].shape, generator=generator))
    return torch.cat(noises), torch.cat(conditions), generators


def draw_noise(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """The noise (L, C, h, w) that start_latents() draws of a generator, which is then where the steps go on.

    The picture's latents, which take the first numbers of it, are left out.
    """
    torch.randn(shape[1:], generator=generator)
    return torch.randn(tuple(shape), generator=generator)


@torch.no_grad()
def sample(
    transformer: CogVideoXTransformer3DModel,
    scheduler_config: Mapping[str, Any],
    latents: Tensor,
    condition: Tensor,
    prompt_embeds: Tensor,
    negative_embeds: Tensor,
    run: Run,
    *,
    generators: Sequence[torch.Generator] | None = None,
    attention_kwargs: Callable[[int], dict[str, Any]] | None = None,
) -> Tensor:
    """Denoised latents (B, L, C, h, w), float32, on the run's device.

    latents is noise and condition the image's latents, both (B, L, C, h, w); the embeddings are (B, S, D).
    generators, one a video, give the noise of the steps; they are made of the run's seed if not given.
    attention_kwargs gives the attention processors' named arguments at a timestep (999..0).
    Raises SettingError as make_scheduler(), take_steps() and accelerate() do.
    Source: CogVideoX image-to-video, diffusers' CogVideoXImageToVideoPipeline.
    """
    scheduler = make_scheduler(scheduler_config, run.scheduler)
    take_steps(scheduler, run.steps)
    device, guided = run.device, run.cfg != 1.0
    copies = 2 if guided else 1
    prompts = torch.cat([negative_embeds, prompt_embeds]) if guided else prompt_embeds
    condition = condition.to(device, torch.float32).repeat(copies, 1, 1, 1, 1)
    transformer = for_num_latent_frames(transformer, latents.shape[1])
    call = accelerate(transformer, run.acceleration, like=prompt_embeds)
    predict = make_predict(transformer, latents.shape, device, call)

    def denoise(latents: Tensor, timestep: int) -> Tensor:
        noisy = scheduler.scale_model_input(latents, timestep).repeat(copies, 1, 1, 1, 1)
        timesteps = torch.full((len(prompts),), timestep, device=device)
        asked = attention_kwargs(timestep) if attention_kwargs else None
        velocity = predict(noisy, condition, prompts, timesteps, asked)
        if guided:
            negative, positive = velocity.chunk(2)
            velocity = negative + run.cfg * (positive - negative)
        return velocity

    take = SAMPLERS[run.scheduler][1]
    started = latents.to(device, torch.float32) * scheduler.init_noise_sigma
    generators = run.make_generators(len(latents)) if generators is None else list(generators)
    return take(scheduler, started, denoise, generators, run.on_step or (lambda index, clean: None))
