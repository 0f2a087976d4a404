"""Learning an action: motion tokens fitted to one reference clip, the base frozen.

Shape letters: B batch, N clips, L latent frames, C channels, h w latent height and width, S text tokens, D width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..cogvideox.model import for_num_latent_frames, pad_image_latents, rotary_positions
from ..errors import SettingError
from .attention import LayerMotion, project_motion, with_motion_attention
from .clips import Clips

IMAGE_DROPOUT = 0.05
CAPTION_DROPOUT = 0.1
ADAM_BETAS = (0.9, 0.95)
WEIGHT_DECAY = 1e-4
GRADIENT_CLIP = 1.0


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
    rotary = rotary_positions(transformer.config, num_latent_frames, height, width)
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
        loss = loss + (_motion(predicted, debias_frames) - _motion(video_latents, debias_frames)).square().flatten(
            1
        ).mean(1)
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
    on_step: Callable[[int, float], None] | None = None,
) -> Tensor:
    """Motion tokens (layers, M, width), float32 on the CPU, learned from the clips of one action.

    M is the base's text length unless num_tokens says otherwise. The transformer is on `device`, frozen and left as
    it is; no adapter takes part. on_step is called after each step with its index and loss; it may raise to stop.
    Raises SettingError if a setting is out of range or the loss is no longer a number.
    Source: FlexiAct section 3.3.
    """
    check_training_settings(steps, learning_rate, batch_size)
    config = transformer.config
    generator = torch.Generator().manual_seed(seed)
    width = config.num_attention_heads * config.attention_head_dim
    num_tokens = num_tokens or config.max_text_seq_length
    # Not all zero: tokens that start equal get equal gradients and would stay one token for ever.
    start = torch.randn(config.num_layers, num_tokens, width, generator=generator) * 0.02
    tokens = torch.nn.Parameter(start.to(device))
    optimizer = torch.optim.AdamW([tokens], lr=learning_rate, betas=ADAM_BETAS, weight_decay=WEIGHT_DECAY)
    learner = with_motion_attention(for_num_latent_frames(transformer, clips.video.mean.shape[1]))
    if gradient_checkpointing:
        # Reaches the learner's own tree only, so that sampling with the same base stays without it.
        learner.enable_gradient_checkpointing()
    for step in range(steps):
        batch = draw_batch(clips, scheduler.config.num_train_timesteps, batch_size, generator)
        batch = {name: value.to(device) for name, value in batch.items()}
        motion = project_motion(learner, [(tokens.to(batch["prompt_embeds"].dtype), 1.0)])
        loss = denoising_loss(learner, scheduler, **batch, motion=motion)
        if not math.isfinite(loss.item()):
            raise SettingError(
                f"training: the loss is no longer a number at step {step + 1}. Use a smaller learning rate than "
                f"{learning_rate:g}."
            )
        loss.backward()
        torch.nn.utils.clip_grad_norm_([tokens], GRADIENT_CLIP)
        optimizer.step()
        optimizer.zero_grad()
        if on_step is not None:
            on_step(step, loss.item())
    return tokens.detach().float().cpu()


def draw_batch(clips: Clips, num_timesteps: int, batch_size: int, generator: torch.Generator) -> dict[str, Tensor]:
    """One training batch on the CPU, as the named arguments of denoising_loss.

    Clips, posterior samples, noise, timesteps and the debiased frame are drawn anew; now and then the condition image
    or the caption is left out.
    """
    which = torch.randint(len(clips.video.mean), (batch_size,), generator=generator)
    video = _draw(clips.video.mean[which], clips.video.std[which], generator) * clips.scaling_factor
    image = _draw(clips.image.mean[which], clips.image.std[which], generator) * clips.scaling_factor
    keep_image = torch.rand(batch_size, generator=generator) >= IMAGE_DROPOUT
    keep_caption = torch.rand(batch_size, generator=generator) >= CAPTION_DROPOUT
    return {
        "video_latents": video,
        "image_latents": image * keep_image[:, None, None, None, None],
        "noise": torch.randn(video.shape, generator=generator),
        "timesteps": torch.randint(num_timesteps, (batch_size,), generator=generator),
        "prompt_embeds": torch.where(keep_caption[:, None, None], clips.prompt_embeds, clips.empty_embeds),
        "debias_frames": torch.randint(video.shape[1] - 1, (batch_size,), generator=generator),
    }


def _draw(mean: Tensor, std: Tensor, generator: torch.Generator) -> Tensor:
    return mean + std * torch.randn(mean.shape, generator=generator)


def _motion(latents: Tensor, frames: Tensor) -> Tensor:
    rows = torch.arange(len(latents), device=latents.device)
    return math.sqrt(2) * latents[rows, frames + 1] - latents[rows, frames]


def check_training_settings(steps: int, learning_rate: float, batch_size: int) -> None:
    """Nothing, if training can run with these settings. Raises SettingError otherwise."""
    if steps < 1:
        raise SettingError(f"steps {steps}: at least 1 is needed.")
    if batch_size < 1:
        raise SettingError(f"batch_size {batch_size}: at least 1 is needed.")
    if not (math.isfinite(learning_rate) and learning_rate > 0):
        raise SettingError(f"learning_rate {learning_rate}: a number above 0 is needed. The method uses 0.003.")
