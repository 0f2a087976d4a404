"""CogVideoX's own noise, samplers and schedule as ComfyUI's NOISE, SAMPLER and SIGMAS, by the core's steps."""

from __future__ import annotations

from functools import lru_cache

from ..flexiact_core.errors import SettingError


def trailing_sigmas(model_sampling, steps: int):
    """SIGMAS (steps + 1,) of a run whose timesteps are spaced from the noisy end, as CogVideoX's are; the last is 0."""
    import torch

    timesteps = _scheduler("DDIM", steps).timesteps
    sigmas = model_sampling.sigmas.cpu()
    return torch.cat([sigmas[timesteps], sigmas.new_zeros(1)])


class StartNoise:
    """A NOISE: what the core's start_latents() draws of a seed, and of the seeds that follow for a batch."""

    def __init__(self, seed: int):
        self.seed = seed

    def generate_noise(self, latent: dict):
        """Noise (B, C, L, h, w) for a LATENT of that shape."""
        import torch

        return torch.stack([noise for noise, _ in _starts(latent["samples"].shape, self.seed)]).movedim(1, 2)


@lru_cache
def sampler_class():
    """The class of a SAMPLER that takes CogVideoX's steps."""
    import comfy.samplers

    class CogVideoXSteps(comfy.samplers.Sampler):
        """Steps of the core's `scheduler`, by its name; each in the scale in which latents and noise have size 1."""

        def __init__(self, scheduler: str):
            self.scheduler = scheduler

        def sample(
            self, model_wrap, sigmas, extra_args, callback, noise, latent_image=None, denoise_mask=None,
            disable_pbar=False,
        ):  # fmt: skip
            return take_steps(
                self.scheduler, model_wrap, sigmas, extra_args, callback, noise, latent_image,
                self.max_denoise(model_wrap, sigmas),
            )  # fmt: skip

    return CogVideoXSteps


def take_steps(name: str, model_wrap, sigmas, extra_args, callback, noise, latent_image, from_noise: bool):
    """Latents (B, C, L, h, w) after the steps of SIGMAS, in ComfyUI's scale at the last of them.

    Raises SettingError if the sigmas are no stretch of a trailing schedule, which those steps are made for.
    """
    import torch

    from ..flexiact_core.cogvideox.sampling import SAMPLERS

    total, sampling = len(sigmas) - 1, model_wrap.inner_model.model_sampling
    timesteps = sampling.timestep(sigmas[:-1]).tolist()
    scheduler = _scheduler(name, _steps_of(timesteps))
    scheduler.timesteps = torch.tensor(timesteps)
    sigma_at = dict(zip(timesteps, sigmas[:-1], strict=True))
    latent_image = torch.zeros_like(noise) if latent_image is None else latent_image
    started = sampling.noise_scaling(sigmas[0], noise.float(), latent_image, from_noise) / _size(sigmas[0])
    seen = {}

    def denoise(latents, timestep):
        sigma = sigma_at[timestep]
        noisy = latents.movedim(1, 2)
        clean = model_wrap(noisy * _size(sigma), sigma * noisy.new_ones(len(noisy)), **extra_args)
        seen["x"] = noisy
        # The velocity that the model gave, whatever guidance made of it.
        return ((noisy / _size(sigma) - clean) * _size(sigma) / sigma).movedim(1, 2)

    def on_step(index, clean):
        if callback is not None:
            callback(index, clean.movedim(1, 2), seen["x"], total)

    # The first numbers of a seed are those of the noise: steps that took them again would add it twice.
    generators = [generator for _, generator in _starts(noise.shape, extra_args.get("seed") or 0)]
    take = SAMPLERS[name][1]
    return take(scheduler, started.movedim(1, 2), denoise, generators, on_step).movedim(1, 2) * _size(sigmas[-1])


def _starts(shape, seed: int) -> list:
    """The noise (L, C, h, w) of each video of a batch (B, C, L, h, w), and the generator that its steps go on with."""
    from ..flexiact_core.cogvideox.sampling import draw_noise
    from .host.encodings import generator

    videos, channels, *rest = shape
    generators = [generator((seed + row) % 2**64) for row in range(videos)]
    return [(draw_noise((rest[0], channels, *rest[1:]), each), each) for each in generators]


def _size(sigma):
    """What noisy latents of size 1 are multiplied by to be noisy as ComfyUI counts it."""
    return (1 + sigma**2) ** 0.5


def _scheduler(name: str, steps: int):
    from ..flexiact_core.cogvideox.loading import SCHEDULER
    from ..flexiact_core.cogvideox.sampling import make_scheduler, take_steps

    scheduler = make_scheduler(SCHEDULER, name)
    take_steps(scheduler, steps)
    return scheduler


def _steps_of(timesteps: list[int]) -> int:
    """How many steps the whole trailing schedule has that these timesteps are a stretch of."""
    if len(timesteps) == 1:
        return round(1000 / (1000 - timesteps[0])) if timesteps[0] > 499 else round(1000 / (timesteps[0] + 1))
    apart = (timesteps[0] - timesteps[-1]) / (len(timesteps) - 1)
    nearest = round(1000 / apart) if apart > 0 else 0
    for steps in sorted(range(max(1, nearest - 20), min(1000, nearest + 20) + 1), key=lambda n: abs(n - nearest)):
        whole = _scheduler("DDIM", steps).timesteps.tolist()
        if timesteps[0] in whole and whole[(at := whole.index(timesteps[0])) : at + len(timesteps)] == timesteps:
            return steps
    raise SettingError(
        "sigmas: no stretch of CogVideoX's own schedule, which CogVideoX Sampler's steps are made for. Connect "
        "CogVideoX Schedule, or BasicScheduler with 'simple' at 10, 20, 25 or 50 steps."
    )
