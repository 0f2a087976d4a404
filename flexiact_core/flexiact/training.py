"""Learning: motion tokens from the clips of one action, or a RefAdapter from many videos; the base stays frozen.

Shape letters: B batch, N clips, L latent frames, C channels, h w latent height and width, S text tokens, D width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..checkpoint import read_metadata, read_tensors, write_tensors
from ..cogvideox.model import Posterior, for_num_latent_frames, pad_image_latents, rotary_positions, share_weights
from ..errors import CheckpointError, SettingError
from .attention import LayerMotion, project_motion, with_motion_attention
from .clips import Clips
from .refadapter import RefAdapter, inject_refadapter, learned_matrices, new_refadapter

IMAGE_DROPOUT = 0.05
CAPTION_DROPOUT = 0.1
ADAM_BETAS = (0.9, 0.95)
WEIGHT_DECAY = 1e-4
GRADIENT_CLIP = 1.0
TOKENS = "tokens"


class StopTraining(Exception):
    """Ends a training that it is raised in, and keeps what was learned so far."""


@dataclass(frozen=True, eq=False)
class TrainingState:
    """All that a training needs to go on: what was learned, the optimizer's moments, and the random state.

    parameters and moments are float32 on the CPU; losses holds one value for each step done.
    """

    parameters: Mapping[str, Tensor]
    moments: Mapping[str, Tensor]
    generator: Tensor
    losses: Tensor

    @property
    def steps_done(self) -> int:
        return len(self.losses)


OnStep = Callable[[int, float, Callable[[], TrainingState]], None]


def denoising_loss(
    transformer,
    scheduler,
    video_latents: Tensor,
    image_latents: Tensor,
    noise: Tensor,
    timesteps: Tensor,
    prompt_embeds: Tensor,
    *,
    motion: Sequence[LayerMotion] | None = None,
    debias_frames: Tensor | None = None,
) -> Tensor:
    """The training loss, a float32 scalar: the error of the predicted clean latents, weighted by 1 / (1 - abar).

    video_latents and noise are (B, L, C, h, w), image_latents (B, 1, C, h, w), timesteps (B,) in 0..999, embeddings
    (B, S, D). With debias_frames (B,), the index of one latent frame per sample, the debiased motion loss is added,
    unweighted: the error of sqrt(2) * z[i+1] - z[i].
    Source: FlexiAct section 3.3; Motion Inversion for the debiased term.
    """
    dtype = prompt_embeds.dtype
    device = video_latents.device
    num_latent_frames, (height, width) = video_latents.shape[1], video_latents.shape[-2:]
    noisy = scheduler.add_noise(video_latents, noise, timesteps)
    condition = pad_image_latents(image_latents, num_latent_frames)
    # A module that shares gradients between processes holds the transformer inside.
    config = getattr(transformer, "module", transformer).config
    rotary = rotary_positions(config, num_latent_frames, height, width)
    velocity = transformer(
        hidden_states=torch.cat([noisy, condition], dim=2).to(dtype),
        encoder_hidden_states=prompt_embeds,
        timestep=timesteps,
        image_rotary_emb=None if rotary is None else tuple(table.to(device) for table in rotary),
        attention_kwargs=None if motion is None else {"motion": motion},
        return_dict=False,
    )[0].float()
    predicted = scheduler.get_velocity(velocity, noisy, timesteps)
    error = (predicted - video_latents).square().flatten(1).mean(1)
    abar = scheduler.alphas_cumprod.to(device)[timesteps]
    loss = error / (1 - abar)
    if debias_frames is not None:
        motion_error = _motion(predicted, debias_frames) - _motion(video_latents, debias_frames)
        loss = loss + motion_error.square().flatten(1).mean(1)
    return loss.mean().float()


def fit_fae(
    transformer,
    scheduler,
    clips: Clips,
    *,
    steps: int,
    learning_rate: float,
    seed: int,
    device: torch.device,
    num_tokens: int | None = None,
    batch_size: int = 1,
    gradient_checkpointing: bool = False,
    debiased: bool = True,
    resume: TrainingState | None = None,
    on_step: OnStep | None = None,
    stop_on: tuple[type[BaseException], ...] = (StopTraining,),
) -> TrainingState:
    """The state after `steps` steps; its parameters[TOKENS] (layers, M, width) is what was learned of the action.

    M is the base's text length unless num_tokens says otherwise. The transformer is on `device`, frozen and left as
    it is; no adapter takes part. `resume` goes on from an earlier state, bit for bit as if it had never stopped.
    on_step is called after each step with its index, its loss, and a function that gives the state. Exceptions of
    `stop_on`, raised there or inside the model, end the training: the state after the last whole step is returned.
    Raises SettingError if a setting is out of range or the loss is no longer a number, CheckpointError if `resume`
    is of another base.
    Source: FlexiAct section 3.3.
    """
    check_training_settings(steps, learning_rate, batch_size)
    config = transformer.config
    generator = torch.Generator().manual_seed(seed)
    shape = (
        config.num_layers,
        num_tokens or config.max_text_seq_length,
        config.num_attention_heads * config.attention_head_dim,
    )
    # Not all zero: tokens that start equal get equal gradients and would stay one token for ever.
    tokens = torch.nn.Parameter((torch.randn(shape, generator=generator) * 0.02).to(device))
    learner = with_motion_attention(for_num_latent_frames(transformer, clips.video.mean.shape[1]))
    if gradient_checkpointing:
        # Reaches the learner's own tree only, so that sampling with the same base stays without it.
        learner.enable_gradient_checkpointing()

    def compute_loss() -> Tensor:
        batch = draw_fae_batch(clips, scheduler.config.num_train_timesteps, batch_size, generator, debiased)
        batch = {name: value.to(device) for name, value in batch.items()}
        motion = project_motion(learner, [(tokens.to(batch["prompt_embeds"].dtype), 1.0)])
        return denoising_loss(learner, scheduler, **batch, motion=motion)

    return _descend(
        {TOKENS: tokens}, compute_loss, generator, steps=steps, learning_rate=learning_rate, resume=resume,
        on_step=on_step, stop_on=stop_on,
    )  # fmt: skip


def fit_refadapter(
    transformer,
    scheduler,
    draw_clip: Callable[[torch.Generator], TrainingClip],
    *,
    rank: int = 64,
    steps: int,
    learning_rate: float,
    seed: int,
    device: torch.device,
    batch_size: int = 1,
    gradient_checkpointing: bool = False,
    resume: TrainingState | None = None,
    on_step: OnStep | None = None,
    stop_on: tuple[type[BaseException], ...] = (StopTraining,),
    wrap: Callable[[torch.nn.Module], torch.nn.Module] | None = None,
    shard: tuple[int, int] = (0, 1),
) -> TrainingState:
    """The state after `steps` steps; refadapter_of() makes a RefAdapter of its parameters.

    draw_clip gives one encoded clip at a time, at random. The LoRA counts with weight 1, no motion tokens take part,
    and the clip's first latent frame is replaced by that of the condition image, a random frame of the clip.
    With several processes, `wrap` puts the learning transformer into a module that shares their gradients, batch_size
    is per process, and `shard` is this one's number and their count: each draws the same whole batch and computes its
    part of it, so that the result is that of one process with the whole batch. Everything else is as in fit_fae().
    Source: FlexiAct section 3.2.
    """
    check_training_settings(steps, learning_rate, batch_size)
    generator = torch.Generator().manual_seed(seed)
    config = transformer.config
    start = new_refadapter(config.num_layers, rank, config.num_attention_heads * config.attention_head_dim, seed=0)
    learner = share_weights(transformer)
    inject_refadapter(learner, start, "learning")
    parameters = {}
    for key, matrix in learned_matrices(learner, "learning").items():
        matrix.data = matrix.data.to(device, torch.float32)
        parameters[key] = matrix.requires_grad_()
    if gradient_checkpointing:
        learner.enable_gradient_checkpointing()
    forward = learner if wrap is None else wrap(learner)
    number, num_shards = shard
    own = slice(number * batch_size, (number + 1) * batch_size)

    def compute_loss() -> Tensor:
        clips = [draw_clip(generator) for _ in range(batch_size * num_shards)]
        batch = draw_refadapter_batch(clips, scheduler.config.num_train_timesteps, generator)
        batch = {name: value[own].to(device) for name, value in batch.items()}
        # Clips differ in length, and so in the learned positions that count; this tree is the learner's own.
        learner.patch_embed = for_num_latent_frames(transformer, batch["video_latents"].shape[1]).patch_embed
        return denoising_loss(forward, scheduler, **batch)

    return _descend(
        parameters, compute_loss, generator, steps=steps, learning_rate=learning_rate, resume=resume,
        on_step=on_step, stop_on=stop_on,
    )  # fmt: skip


def refadapter_of(state: TrainingState, name: str = "") -> RefAdapter:
    """The RefAdapter that a state of fit_refadapter() has learned."""
    down = next(value for key, value in state.parameters.items() if key.endswith(".down.weight"))
    num_layers = 1 + max(int(key.split(".")[1]) for key in state.parameters)
    return RefAdapter(state.parameters, num_layers, *down.shape, name=name)


@dataclass(frozen=True, eq=False)
class TrainingClip:
    """One encoded clip for RefAdapter: its video (1, L, C, h, w), one of its frames (1, 1, C, h, w), its caption.

    Posteriors are unscaled; prompt_embeds is (1, S, D).
    """

    video: Posterior
    image: Posterior
    prompt_embeds: Tensor
    scaling_factor: float


def draw_fae_batch(
    clips: Clips, num_timesteps: int, batch_size: int, generator: torch.Generator, debiased: bool = True
) -> dict[str, Tensor]:
    """One training batch on the CPU, as the named arguments of denoising_loss().

    Clips, posterior samples, noise, timesteps and the debiased frame are drawn anew; now and then the condition image
    or the caption is left out.
    """
    which = torch.randint(len(clips.video.mean), (batch_size,), generator=generator)
    video = _draw(clips.video.mean[which], clips.video.std[which], generator) * clips.scaling_factor
    image = _draw(clips.image.mean[which], clips.image.std[which], generator) * clips.scaling_factor
    keep_image = torch.rand(batch_size, generator=generator) >= IMAGE_DROPOUT
    keep_caption = torch.rand(batch_size, generator=generator) >= CAPTION_DROPOUT
    captions = clips.prompt_embeds if len(clips.prompt_embeds) == 1 else clips.prompt_embeds[which]
    batch = {
        "video_latents": video,
        "image_latents": image * keep_image[:, None, None, None, None],
        "noise": torch.randn(video.shape, generator=generator),
        "timesteps": torch.randint(num_timesteps, (batch_size,), generator=generator),
        "prompt_embeds": torch.where(keep_caption[:, None, None], captions, clips.empty_embeds),
    }
    debias_frames = torch.randint(video.shape[1] - 1, (batch_size,), generator=generator)
    return batch | ({"debias_frames": debias_frames} if debiased else {})


def draw_refadapter_batch(
    clips: Sequence[TrainingClip], num_timesteps: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """One training batch on the CPU, as the named arguments of denoising_loss(); as long as its shortest clip."""
    length = min(clip.video.mean.shape[1] for clip in clips)
    video = torch.cat(
        [
            _draw(clip.video.mean[:, :length], clip.video.std[:, :length], generator) * clip.scaling_factor
            for clip in clips
        ]
    )
    image = torch.cat([_draw(clip.image.mean, clip.image.std, generator) * clip.scaling_factor for clip in clips])
    return {
        "video_latents": torch.cat([image, video[:, 1:]], dim=1),
        "image_latents": image,
        "noise": torch.randn(video.shape, generator=generator),
        "timesteps": torch.randint(num_timesteps, (len(clips),), generator=generator),
        "prompt_embeds": torch.cat([clip.prompt_embeds for clip in clips]),
    }


def save_state(state: TrainingState, path: Path, metadata: Mapping[str, str]) -> Path:
    """The checkpoint written, whole or not at all. Raises CheckpointError if it could not be written."""
    tensors = {f"learned/{key}": value for key, value in state.parameters.items()}
    tensors |= {f"moments/{key}": value for key, value in state.moments.items()}
    tensors |= {"generator": state.generator, "losses": state.losses}
    return write_tensors(tensors, path, metadata)


def load_state(path: Path) -> tuple[TrainingState, dict[str, str]]:
    """The state and the metadata of a checkpoint. Raises CheckpointError if it is damaged or of something else."""
    tensors = read_tensors(path)

    def part(prefix: str) -> dict[str, Tensor]:
        return {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}

    parameters, moments = part("learned/"), part("moments/")
    if not parameters or len(moments) != 2 * len(parameters) or not {"generator", "losses"} <= tensors.keys():
        raise CheckpointError(f"{Path(path).name}: this is no checkpoint of a training. Choose another file.")
    return TrainingState(parameters, moments, tensors["generator"], tensors["losses"]), read_metadata(path)


def check_training_settings(steps: int, learning_rate: float, batch_size: int) -> None:
    """Nothing, if training can run with these settings. Raises SettingError otherwise."""
    if steps < 1:
        raise SettingError(f"steps {steps}: at least 1 is needed.")
    if batch_size < 1:
        raise SettingError(f"batch_size {batch_size}: at least 1 is needed.")
    if not (math.isfinite(learning_rate) and learning_rate > 0):
        raise SettingError(f"learning_rate {learning_rate}: a number above 0 is needed. The method uses 0.003.")


def _descend(
    parameters: Mapping[str, torch.nn.Parameter],
    compute_loss: Callable[[], Tensor],
    generator: torch.Generator,
    *,
    steps: int,
    learning_rate: float,
    resume: TrainingState | None,
    on_step: OnStep | None,
    stop_on: tuple[type[BaseException], ...],
) -> TrainingState:
    leaves = list(parameters.values())
    optimizer = torch.optim.AdamW(leaves, lr=learning_rate, betas=ADAM_BETAS, weight_decay=WEIGHT_DECAY)
    losses: list[float] = []
    if resume is not None:
        _restore(resume, parameters, optimizer)
        generator.set_state(resume.generator)
        losses = resume.losses.tolist()

    def take_state() -> TrainingState:
        return _snapshot(parameters, optimizer, generator, losses)

    for step in range(len(losses), steps):
        random_state = generator.get_state()
        try:
            loss = compute_loss()
            if not math.isfinite(loss.item()):
                raise SettingError(
                    f"training: the loss is no longer a number at step {step + 1}. Use a smaller learning rate than "
                    f"{learning_rate:g}."
                )
            loss.backward()
            torch.nn.utils.clip_grad_norm_(leaves, GRADIENT_CLIP)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
            if on_step is not None:
                on_step(step, losses[-1], take_state)
        except stop_on:
            if len(losses) == step:
                # Stopped half way through a step: whoever resumes draws the same batch again.
                generator.set_state(random_state)
            break
    return take_state()


def _snapshot(parameters, optimizer, generator: torch.Generator, losses: list[float]) -> TrainingState:
    learned = {key: value.detach().float().cpu().clone() for key, value in parameters.items()}
    moments = {}
    for key, value in parameters.items():
        for moment in ("exp_avg", "exp_avg_sq"):
            stored = optimizer.state[value].get(moment)
            stored = torch.zeros_like(learned[key]) if stored is None else stored.detach().cpu().clone()
            moments[f"{moment}/{key}"] = stored
    return TrainingState(learned, moments, generator.get_state(), torch.tensor(losses, dtype=torch.float64))


def _restore(state: TrainingState, parameters, optimizer) -> None:
    for key, value in parameters.items():
        stored = state.parameters.get(key)
        if stored is None or stored.shape != value.shape:
            found = "nothing" if stored is None else list(stored.shape)
            raise CheckpointError(
                f"resume: the checkpoint is of another base or size ({key}: {list(value.shape)} expected, {found} "
                "found). Start anew under another name, or load the base it was made with."
            )
        value.data.copy_(stored)
        optimizer.state[value] = {
            "step": torch.tensor(float(state.steps_done)),
            "exp_avg": state.moments[f"exp_avg/{key}"].to(value.device).clone(),
            "exp_avg_sq": state.moments[f"exp_avg_sq/{key}"].to(value.device).clone(),
        }


def _draw(mean: Tensor, std: Tensor, generator: torch.Generator) -> Tensor:
    return mean + std * torch.randn(mean.shape, generator=generator)


def _motion(latents: Tensor, frames: Tensor) -> Tensor:
    rows = torch.arange(len(latents), device=latents.device)
    return math.sqrt(2) * latents[rows, frames + 1] - latents[rows, frames]
