"""Action transfer: pictures, an action, and a base, made into the latents of videos."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..cogvideox.model import CogVideoXI2V, Posterior
from ..cogvideox.processor import Conditioned
from ..cogvideox.sampling import Run, sample, start_latents
from ..errors import FileError
from .bias import PAPER_BIAS, MotionBias, own_bias
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
    check_takes_no_poses(base)
    device, dtype = run.device, base.dtype
    conditioned = condition_on_actions(base, device, faes=faes, adapters=adapters, bias=bias, on_share=on_share)
    noise, condition, generators = start_latents(base, image, run)
    latents = sample(
        conditioned.transformer,
        base.scheduler_config,
        noise,
        condition,
        prompt_embeds.to(device, dtype),
        negative_embeds.to(device, dtype),
        run,
        generators=generators,
        attention_kwargs=conditioned.kwargs,
    )
    return latents[:, base.family.count_padding(run.num_frames) :]


@torch.no_grad()
def condition_on_actions(
    base: CogVideoXI2V,
    device: torch.device,
    *,
    faes: Sequence[tuple[FAE, float]] = (),
    adapters: Sequence[tuple[RefAdapter, float]] = (),
    bias: MotionBias | None = None,
    on_share: Callable[[int, Tensor], None] | None = None,
) -> Conditioned:
    """The base's transformer, which is on `device`, ready for the actions; also for a run that more acts on.

    The arguments are those of transfer_action(), but that bias None is the base's own.
    Raises FileError if an action or adapter is of another base, or as own_bias() does.
    """
    for fae, _ in faes:
        check_fae(fae, base.transformer)
    transformer = with_refadapters(base.transformer, adapters, device, base.dtype)
    motion = project_motion(transformer, [(fae.tokens.to(device, base.dtype), strength) for fae, strength in faes])
    bias = bias or own_bias(base.transformer.config)
    return Conditioned(with_motion_attention(transformer), motion_kwargs(motion, bias, on_share))


def check_takes_no_poses(base: CogVideoXI2V) -> None:
    """Passes for a base that was trained without poses. Raises FileError otherwise, naming the node to use."""
    if base.family.pose_norms:
        raise FileError(
            f"This base is {base.family.name}: it was trained with poses in every step. Use Pose Transfer, which "
            "takes the action too."
        )
