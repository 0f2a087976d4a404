"""Learning: motion tokens from the clips of one action, or a RefAdapter from many videos; the base stays frozen.

Shape letters: B batch, N clips, L latent frames, C channels, h w latent height and width, S text tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..cogvideox.encodings import Clips, EncodedClips, TrainingClip
from ..cogvideox.family import family_of
from ..cogvideox.loss import Batch, denoising_loss
from ..cogvideox.model import CogVideoXI2V, Posterior, for_num_latent_frames, sample_posterior, width_of
from ..cogvideox.sampling import make_scheduler
from ..errors import FileError
from ..modules import share_weights
from ..training import Course, TrainingState, descend
from .processor import project_motion, with_motion_attention
from .refadapter import RefAdapter, inject_refadapter, learned_matrices, new_refadapter

if TYPE_CHECKING:
    from diffusers import CogVideoXDDIMScheduler, CogVideoXDPMScheduler, CogVideoXTransformer3DModel

IMAGE_DROPOUT = 0.05
CAPTION_DROPOUT = 0.1
TOKENS = "tokens"


def fit_fae(
    transformer: CogVideoXTransformer3DModel,
    scheduler: CogVideoXDPMScheduler | CogVideoXDDIMScheduler,
    clips: Clips,
    course: Course,
    *,
    num_tokens: int | None = None,
    debiased: bool = True,
) -> TrainingState:
    """The state after the course; its parameters[TOKENS] (layers, M, width) is what was learned of the action.

    M is the base's text length unless num_tokens says otherwise. The transformer is on the course's device, frozen and
    left as it is; no adapter takes part.
    Raises SettingError if a setting is out of range or the loss is no longer a number, FileError if what is resumed
    is of another base.
    Source: FlexiAct section 3.3.
    """
    course.check()
    _check_learns_here(transformer)
    config, generator, device = transformer.config, course.generator(), course.device
    shape = (
        config.num_layers,
        num_tokens or config.max_text_seq_length,
        width_of(config),
    )
    # Not all zero: tokens that start equal get equal gradients and would stay one token for ever.
    tokens = torch.nn.Parameter((torch.randn(shape, generator=generator) * 0.02).to(device))
    learner = with_motion_attention(for_num_latent_frames(transformer, clips.video.mean.shape[1]))
    if course.gradient_checkpointing:
        # Reaches the learner's own tree only, so that sampling with the same base stays without it.
        learner.enable_gradient_checkpointing()

    def compute_loss() -> Tensor:
        num_timesteps = scheduler.config.num_train_timesteps
        batch = draw_fae_batch(clips, num_timesteps, course.whole_batch, generator, debiased).part(course.own_part)
        motion = project_motion(learner, [(tokens.to(batch.prompt_embeds.dtype), 1.0)])
        return denoising_loss(learner, scheduler, batch.to(device), {"motion": motion})

    return descend({TOKENS: tokens}, compute_loss, generator, course)


def fit_refadapter(
    transformer: CogVideoXTransformer3DModel,
    scheduler: CogVideoXDPMScheduler | CogVideoXDDIMScheduler,
    draw_clip: Callable[[torch.Generator], TrainingClip],
    course: Course,
    *,
    rank: int = 64,
) -> TrainingState:
    """The state after the course; refadapter_of() makes a RefAdapter of its parameters.

    draw_clip gives one encoded clip at a time, at random. The LoRA counts with weight 1, no motion tokens take part,
    and the clip's first latent frame is replaced by that of the condition image, a random frame of the clip.
    Everything else is as in fit_fae().
    Source: FlexiAct section 3.2.
    """
    course.check()
    _check_learns_here(transformer)
    generator, config = course.generator(), transformer.config
    start = new_refadapter(config.num_layers, rank, width_of(config), course.seed)
    learner, parameters = start_learning(transformer, start, course.device)
    if course.gradient_checkpointing:
        learner.enable_gradient_checkpointing()

    def compute_loss() -> Tensor:
        clips = [draw_clip(generator) for _ in range(course.whole_batch)]
        batch = draw_refadapter_batch(clips, scheduler.config.num_train_timesteps, generator).part(course.own_part)
        batch = batch.to(course.device)
        # Clips differ in length, and so in the learned positions that count; this tree is the learner's own.
        learner.patch_embed = for_num_latent_frames(transformer, batch.video_latents.shape[1]).patch_embed
        return denoising_loss(learner, scheduler, batch)

    return descend(parameters, compute_loss, generator, course)


def start_learning(
    transformer: CogVideoXTransformer3DModel, start: RefAdapter, device: torch.device
) -> tuple[torch.nn.Module, dict[str, torch.nn.Parameter]]:
    """A transformer over the same weights that learns an adapter, and its matrices by released key, in float32."""
    learner = share_weights(transformer)
    inject_refadapter(learner, start, "learning")
    parameters = {}
    for key, matrix in learned_matrices(learner, "learning").items():
        matrix.data = matrix.data.to(device, torch.float32)
        parameters[key] = matrix.requires_grad_()
    return learner, parameters


def refadapter_fit(base: CogVideoXI2V, clips: EncodedClips, rank: int) -> Callable[[Course], TrainingState]:
    """fit_refadapter() on a base and its encoded clips: what is left is the course of the training."""
    scheduler = make_scheduler(base.scheduler_config, "DPM")
    return partial(fit_refadapter, base.transformer, scheduler, clips.draw, rank=rank)


def refadapter_of(
    state: TrainingState, name: str = "", metadata: Mapping[str, str] = MappingProxyType({})
) -> RefAdapter:
    """The RefAdapter that a state of fit_refadapter() has learned; metadata holds what it was learned on, as 'base'."""
    down = next(value for key, value in state.parameters.items() if key.endswith(".down.weight"))
    num_layers = 1 + max(int(key.split(".")[1]) for key in state.parameters)
    return RefAdapter(state.parameters, num_layers, *down.shape, name, metadata)


def draw_fae_batch(
    clips: Clips, num_timesteps: int, batch_size: int, generator: torch.Generator, debiased: bool = True
) -> Batch:
    """One training batch on the CPU.

    Clips, posterior samples, noise, timesteps and the debiased frame are drawn anew; now and then the condition image
    or the caption is left out.
    """
    which = torch.randint(len(clips.video.mean), (batch_size,), generator=generator)
    video = _draw(clips.video, which, clips.scaling_factor, generator)
    image = _draw(clips.image, which, clips.image_scale or clips.scaling_factor, generator)
    keep_image = torch.rand(batch_size, generator=generator) >= IMAGE_DROPOUT
    keep_caption = torch.rand(batch_size, generator=generator) >= CAPTION_DROPOUT
    captions = clips.prompt_embeds if len(clips.prompt_embeds) == 1 else clips.prompt_embeds[which]
    batch = Batch(
        video_latents=video,
        image_latents=image * keep_image[:, None, None, None, None],
        noise=torch.randn(video.shape, generator=generator),
        timesteps=torch.randint(num_timesteps, (batch_size,), generator=generator),
        prompt_embeds=torch.where(keep_caption[:, None, None], captions, clips.empty_embeds),
    )
    debias_frames = torch.randint(video.shape[1] - 1, (batch_size,), generator=generator)
    return replace(batch, debias_frames=debias_frames) if debiased else batch


def draw_refadapter_batch(clips: Sequence[TrainingClip], num_timesteps: int, generator: torch.Generator) -> Batch:
    """One training batch on the CPU, as long as its shortest clip; its first latent frame is the condition image's."""
    length = min(clip.video.mean.shape[1] for clip in clips)
    video = torch.cat(
        [_draw(clip.video, (slice(None), slice(length)), clip.scaling_factor, generator) for clip in clips]
    )
    image = torch.cat([sample_posterior(clip.image, 1.0, generator) for clip in clips])
    first, condition = (
        torch.cat([row[None] * scale for row, scale in zip(image, scales, strict=True)])
        for scales in (
            [clip.scaling_factor for clip in clips],
            [clip.image_scale or clip.scaling_factor for clip in clips],
        )
    )
    return Batch(
        video_latents=torch.cat([first, video[:, 1:]], dim=1),
        image_latents=condition,
        noise=torch.randn(video.shape, generator=generator),
        timesteps=torch.randint(num_timesteps, (len(clips),), generator=generator),
        prompt_embeds=torch.cat([clip.prompt_embeds for clip in clips]),
    )


def _check_learns_here(transformer: CogVideoXTransformer3DModel) -> None:
    family = family_of(transformer.config)
    if family.pose_norms:
        raise FileError(
            f"This base is {family.name}: its layers expect poses, and clips to learn from have none. Train on plain "
            "CogVideoX 1.5; what is learned there works here too."
        )


def _draw(
    posterior: Posterior, part: Tensor | slice | tuple[slice, ...], scaling_factor: float, generator: torch.Generator
) -> Tensor:
    return sample_posterior(Posterior(posterior.mean[part], posterior.std[part]), scaling_factor, generator)
