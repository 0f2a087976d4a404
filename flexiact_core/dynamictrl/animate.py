"""A picture, poses and a base, made into the latents of a video in which the picture performs the poses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ..cogvideox.model import CogVideoXI2V, Posterior, pad_image_latents, sample_posterior
from ..cogvideox.processor import Conditioned, with_video_attention
from ..cogvideox.sampling import Run, make_scheduler, sample, take_steps
from ..errors import SettingError, ShapeError
from .pose_norm import check_strength, check_takes_poses, check_window, pose_kwargs, pose_tokens, steps_between

ImageScale = Literal["release", "training"]


@dataclass(frozen=True)
class PoseControl:
    """How the poses act.

    strength (0..2) is a factor on what they add; at 0 they add nothing, which the weights were never trained for.
    start and end are percent of the steps between which they act. image_scale is how the picture's latents are scaled:
    release as the released pipeline does (1 where the VAE says invert_scale_latents, else the scaling factor), training
    as in training (always the scaling factor).
    Raises SettingError if a value cannot be that.
    """

    strength: float = 1.0
    start: float = 0.0
    end: float = 100.0
    image_scale: ImageScale = "release"

    def __post_init__(self):
        check_strength(self.strength)
        check_window(self.start, self.end)
        if self.image_scale not in ("release", "training"):
            raise SettingError(f"image_scale '{self.image_scale}': choose release or training.")


@torch.no_grad()
def animate_picture(
    base: CogVideoXI2V,
    image: Posterior,
    poses: Posterior,
    prompt_embeds: Tensor,
    negative_embeds: Tensor,
    run: Run,
    control: PoseControl = PoseControl(),
    conditioned: Conditioned | None = None,
) -> Tensor:
    """Latents (B, L, C, h, w) in which B pictures perform the poses; what to keep of them a FramePlan says.

    image (B, 1, C, h, w) and poses (B or 1, L, C, h, w) are the VAE's posteriors of the pictures and of the drawn
    poses, L even, the embeddings are (B, S, D). The base's transformer is on the run's device and left as it is. A
    seed fixes, in the release's order, the samples of picture and poses, the first noise and that of all steps.
    conditioned is what else acts on the base, such as an action: both act together.
    Raises FileError if the base takes no poses, ShapeError if picture and poses differ in size, SettingError as
    sample() does.
    Source: DynamiCtrl, pipeline_dynamictrl.py.
    """
    check_takes_poses(base.transformer)
    _check_shapes(base, image, poses)
    generators = run.make_generators(len(image.mean))
    drawn = [_draw_latents(base, _row(image, row), _row(poses, row), control, g) for row, g in enumerate(generators)]
    condition, pose_latents, noise = (torch.cat(parts) for parts in zip(*drawn, strict=True))
    device, dtype = run.device, base.dtype
    conditioned = conditioned or Conditioned(with_video_attention(base.transformer))
    tokens = pose_tokens(conditioned.transformer, pose_latents.to(device, dtype))
    if len(tokens) > 1 and run.cfg != 1:
        tokens = tokens.repeat(2, 1, 1)  # one picture's stream serves both halves of guidance as it is
    pose_at = _pose_at(base, conditioned.transformer, tokens, run, control)
    return sample(
        conditioned.transformer,
        base.scheduler_config,
        noise,
        condition,
        prompt_embeds.to(device, dtype),
        negative_embeds.to(device, dtype),
        run,
        generators=generators,
        attention_kwargs=lambda timestep: conditioned.kwargs(timestep) | pose_at(timestep),
    )


def scale_of_image(vae, image_scale: ImageScale) -> float:
    """The factor on the picture's latents; PoseControl says which is which."""
    inverted = vae.config.get("invert_scale_latents") and image_scale == "release"
    return 1.0 if inverted else vae.config.scaling_factor


def _draw_latents(
    base: CogVideoXI2V, image: Posterior, poses: Posterior, control: PoseControl, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Condition, pose latents and first noise of one video, each (1, L, C, h, w); drawn in the release's order."""
    picture = sample_posterior(image, scale_of_image(base.vae, control.image_scale), generator)
    pose_latents = sample_posterior(poses, base.vae.config.scaling_factor, generator)
    noise = torch.randn(pose_latents.shape, generator=generator)
    return pad_image_latents(picture, pose_latents.shape[1]), pose_latents, noise


def _pose_at(
    base: CogVideoXI2V, transformer, tokens: Tensor, run: Run, control: PoseControl
) -> Callable[[int], dict[str, Any]]:
    timesteps = take_steps(make_scheduler(base.scheduler_config, run.scheduler), run.steps)
    active = steps_between(timesteps, control.start, control.end)
    return pose_kwargs(transformer, tokens, base.family.ofs, control.strength, active)


def _row(posterior: Posterior, row: int) -> Posterior:
    rows = slice(None) if len(posterior.mean) == 1 else slice(row, row + 1)
    return Posterior(posterior.mean[rows], posterior.std[rows])


def _check_shapes(base: CogVideoXI2V, image: Posterior, poses: Posterior) -> None:
    (count, *_, height, width), found = image.mean.shape, poses.mean.shape
    if found[0] not in (1, count) or found[-2:] != (height, width):
        raise ShapeError(
            f"poses: latents {list(found)} do not fit the picture's {list(image.mean.shape)}. Draw the poses in the "
            "size of the video."
        )
    if found[1] % (base.family.patch_size_t or 1):
        raise ShapeError(f"poses: {found[1]} latent frames; an even number is needed. Give as many poses as planned.")
