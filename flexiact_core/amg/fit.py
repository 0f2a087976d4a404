"""Learning of AMG: LoRA on all attention and the new input layer, by plain denoising; the base stays frozen.

Shape letters: B batch, F frames, h w latent height and width, S text tokens, D text width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import SettingError
from ..training import Course, Recipe, TrainingState, descend
from .model import AMG, CONV_IN, RANK, Adapter, apply_adapter, inject_lora
from .sampling import NUM_TIMESTEPS, make_scheduler

# AdamW's own moments, no decay, nothing cut: as the release trains.
RECIPE = Recipe(betas=(0.9, 0.999), weight_decay=0.0, gradient_clip=None, usual_rate=1e-6)


@dataclass(frozen=True, eq=False)
class AvatarClip:
    """A clip to learn from, in the UNet's scale: video and avatar (1, 4, F, h, w), and its caption (1, S, D)."""

    video: Tensor
    avatar: Tensor
    text: Tensor


def avatar_loss(unet, scheduler, video: Tensor, avatar: Tensor, noise: Tensor, timesteps: Tensor, text: Tensor):
    """The training loss, a float32 scalar: the mean squared error of the predicted noise.

    video, avatar and noise are (B, 4, F, h, w), timesteps (B,) in 0..999, text (B, S, D), which says in which dtype
    the UNet computes. Source: AMG's release, eps prediction without weights.
    """
    noisy = scheduler.add_noise(video, noise, timesteps)
    model_input = torch.cat([noisy, avatar], dim=1).to(text.dtype)
    predicted = unet(model_input, timesteps, encoder_hidden_states=text, return_dict=False)[0]
    return F.mse_loss(predicted.float(), noise.float())


def fit_amg(
    amg: AMG,
    draw_clip: Callable[[torch.Generator], AvatarClip],
    course: Course,
    *,
    rank: int = RANK,
    null_text: Tensor | None = None,
    caption_dropout: float = 0.0,
) -> TrainingState:
    """The state after the course; adapter_of() makes an Adapter of its parameters.

    Goes on from the LoRA and input layer that `amg` has; a ModelScope base starts with a LoRA of `rank` that changes
    nothing. Its UNet is on the course's device, and left as it is. draw_clip gives a clip at random. With
    caption_dropout (0, the release's, to 1) that share of captions is replaced by null_text (1, S, D).
    Raises SettingError and FileError as training.descend() does.
    Source: AMG's release, train_net_ddp.py, whose learning rate is constant but for the first ten steps.
    """
    course.check(RECIPE)
    if caption_dropout and null_text is None:
        raise SettingError("caption_dropout: needs the text of no words. Set it to 0, or connect a text encoder.")
    generator = course.generator()
    learner, parameters = make_learner(amg, rank, course.device, generator)
    if course.gradient_checkpointing:
        checkpoint_blocks(learner)
    scheduler = make_scheduler()

    def compute_loss() -> Tensor:
        clips = [draw_clip(generator) for _ in range(course.whole_batch)]
        batch = draw_batch(clips, null_text, caption_dropout, generator)
        batch = {name: value[course.own_part].to(course.device) for name, value in batch.items()}
        batch["text"] = batch["text"].to(amg.dtype)
        return avatar_loss(learner, scheduler, **batch)

    return descend(parameters, compute_loss, generator, course, recipe=RECIPE)


def adapter_of(state: TrainingState, name: str = "") -> Adapter:
    """The Adapter that a state of fit_amg() has learned."""
    conv_in = {key: state.parameters[key] for key in CONV_IN}
    return Adapter({key: value for key, value in state.parameters.items() if key not in conv_in}, conv_in, name)


def draw_batch(
    clips: list[AvatarClip], null_text: Tensor | None, caption_dropout: float, generator: torch.Generator
) -> dict[str, Tensor]:
    """One training batch on the CPU, as the named arguments of avatar_loss(); as long as its shortest clip."""
    length = min(clip.video.shape[2] for clip in clips)
    video = torch.cat([clip.video[:, :, :length] for clip in clips])
    text = torch.cat([clip.text for clip in clips])
    noise = torch.randn(video.shape, generator=generator)
    timesteps = torch.randint(NUM_TIMESTEPS, (len(clips),), generator=generator)
    if caption_dropout:
        dropped = torch.rand(len(clips), generator=generator) < caption_dropout
        text = torch.where(dropped[:, None, None], null_text.to(text), text)
    avatar = torch.cat([clip.avatar[:, :, :length] for clip in clips])
    return {"video": video, "avatar": avatar, "noise": noise, "timesteps": timesteps, "text": text}


def make_learner(
    amg: AMG, rank: int, device: torch.device, generator: torch.Generator
) -> tuple[torch.nn.Module, dict[str, torch.nn.Parameter]]:
    """A second UNet over the same weights that learns, and what it learns, float32, by the names of an adapter file."""
    learner = inject_lora(amg.unet, amg.adapter.lora, rank)
    parameters = {}
    for name, matrix in learner.named_parameters():
        if ".lora_" in name:
            if not amg.adapter.lora and ".lora_A." in name:
                # The release's own start; drawn here, so that the seed fixes it.
                matrix.data = torch.randn(matrix.shape, generator=generator) / len(matrix)
            parameters[name.replace(".learning.", ".")] = matrix
    learner.conv_in = LearnedInput(apply_adapter(amg.unet, Adapter(conv_in=amg.adapter.conv_in)).conv_in)
    # diffusers casts times to what the first layer is stored in, and that one is now stored in float32.
    learner.time_embedding.register_forward_pre_hook(lambda _, inputs: (inputs[0].to(amg.dtype), *inputs[1:]))
    parameters |= dict(zip(CONV_IN, (learner.conv_in.weight, learner.conv_in.bias)))
    for matrix in parameters.values():
        matrix.data = matrix.data.to(device, torch.float32)
        matrix.requires_grad_()
    return learner, parameters


class LearnedInput(torch.nn.Module):
    """An input layer whose weights are learned in float32, whatever the rest computes in."""

    def __init__(self, layer: torch.nn.Module):
        super().__init__()
        self.padding = layer.padding
        self.weight = torch.nn.Parameter(layer.weight.detach().float().clone())
        self.bias = torch.nn.Parameter(layer.bias.detach().float().clone())

    def forward(self, sample: Tensor) -> Tensor:
        """The layer's output in the dtype of `sample` (frames, 8, h, w)."""
        return F.conv2d(sample, self.weight.to(sample.dtype), self.bias.to(sample.dtype), padding=self.padding)


def checkpoint_blocks(learner: torch.nn.Module) -> None:
    """From now on each level of `learner` keeps its inputs alone and is computed again for its gradients.

    diffusers' own switch refuses this UNet. The learner's tree is its own, so nobody else sees it.
    """
    from torch.utils.checkpoint import checkpoint

    for block in (*learner.down_blocks, learner.mid_block, *learner.up_blocks):
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
