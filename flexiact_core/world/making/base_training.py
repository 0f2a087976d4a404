"""How the small world's transformer and text encoder are trained, on clips encoded once."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from ...cogvideox.model import pad_image_latents
from ...cogvideox.predict import make_predict
from ...video import to_model_pixels
from ..actions import Motion, sample_motion
from ..render import render_frames
from ..scenes import Scene, caption, in_any_colour, sample_scene, vocabulary
from .hogwild import faster_format
from .models import (
    MAX_TEXT_TOKENS,
    make_scheduler,
    make_text_encoder,
    make_tokenizer,
    make_transformer,
)

if TYPE_CHECKING:
    from diffusers import AutoencoderKLCogVideoX
    from transformers import T5Tokenizer

log = logging.getLogger(__name__)

MEDLEY_SHARE = 0.2
STILL_SHARE = 0.02
WORD_SHARE = 0.7
CAPTION_DROPOUT = 0.1
ANY_COLOUR_SHARE = 0.4
IMAGE_DROPOUT = 0.05
BATCH_SIZE = 16
MOVING_WEIGHT = 4.0
# The mean squared change of a scaled latent at which its weight is half way.
MOVING_CHANGE = 0.25


# Gives the columns of one training clip: the VAE, the tokenizer, and the clip's number.
EncodeClip = Callable[["AutoencoderKLCogVideoX", "T5Tokenizer", int], dict[str, torch.Tensor]]


def training_clip(index: int) -> tuple[Scene, Motion, str | None]:
    """Scene and motion of one of endlessly many training clips, and the name of its action if it has one."""
    rng = np.random.default_rng([index, 77])
    scene = sample_scene(int(rng.integers(2**31)))
    motion, action = sample_motion(rng, MEDLEY_SHARE, STILL_SHARE)
    if rng.uniform() < ANY_COLOUR_SHARE:
        scene = in_any_colour(scene, rng)
    return scene, motion, action


def encode_data(
    vae: AutoencoderKLCogVideoX, folder: Path, encode_clip: EncodeClip, words: tuple[str, ...], *,
    num_clips: int, device: str, workers: int, part_size: int,
) -> None:  # fmt: skip
    """Encodes training clips into a folder, in parts; parts that exist are kept.

    encode_clip gives the columns of a clip by its number, one row each; words are those of its captions. On a CPU as
    many processes as `workers` share the parts.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = [
        (folder / f"part_{first:06d}.pt", first, min(part_size, num_clips - first))
        for first in range(0, num_clips, part_size)
    ]
    missing = [part for part in parts if not part[0].exists()]
    workers = workers if device == "cpu" else 1
    if missing and workers == 1:
        _encode_parts(0, vae, encode_clip, words, missing, device, 1)
    elif missing:
        arguments = (vae, encode_clip, words, missing, device, workers)
        torch.multiprocessing.spawn(_encode_parts, args=arguments, nprocs=workers)


@torch.no_grad()
def _encode_parts(
    rank: int, vae: AutoencoderKLCogVideoX, encode_clip: EncodeClip, words: tuple[str, ...],
    parts: Sequence[tuple[Path, int, int]], device: str, workers: int,
) -> None:  # fmt: skip
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    if device == "cpu":
        torch.set_num_threads(1)
    vae, tokenizer = vae.to(device, faster_format(device)), make_tokenizer(words)
    for path, first, count in parts[rank::workers]:
        clips = [encode_clip(vae, tokenizer, index) for index in range(first, first + count)]
        part = path.with_suffix(".part")
        torch.save({name: torch.cat([clip[name] for clip in clips]) for name in clips[0]}, part)
        os.replace(part, path)
        log.info("encoded %s", path.name)


def encode_scene(vae: AutoencoderKLCogVideoX, tokenizer: T5Tokenizer, index: int) -> dict[str, torch.Tensor]:
    """The columns of a clip: posteriors in float16, of the clip (1, 5, 16, 8, 8) and of its first frame
    (1, 1, 16, 8, 8), and captions as tokens (1, 16), without and with the action's word."""
    scene, motion, action = training_clip(index)
    frames = torch.from_numpy(render_frames(scene, motion))
    said = {"plain": caption(scene), "named": caption(scene, action)}
    return encode_videos(vae, video=frames, image=frames[:1]) | {
        name: tokenize(tokenizer, [text]) for name, text in said.items()
    }


def encode_videos(vae: AutoencoderKLCogVideoX, **videos: torch.Tensor) -> dict[str, torch.Tensor]:
    """Mean and std of the posterior of each video (T, H, W, 3) in 0..1, as NAME_mean and NAME_std (1, L, C, h, w), in
    float16."""
    weight, columns = next(vae.parameters()), {}
    for name, frames in videos.items():
        posterior = vae.encode(to_model_pixels(frames).to(weight.device, weight.dtype)).latent_dist
        columns[f"{name}_mean"] = posterior.mean.transpose(1, 2).half().cpu()
        columns[f"{name}_std"] = posterior.std.transpose(1, 2).half().cpu()
    return columns


def tokenize(tokenizer: T5Tokenizer, texts: list[str]) -> torch.Tensor:
    """Token numbers (N, 16) of N captions, padded."""
    return tokenizer(
        texts, padding="max_length", max_length=MAX_TEXT_TOKENS, truncation=True, return_tensors="pt"
    ).input_ids


def moving_weight(video: torch.Tensor) -> torch.Tensor:
    """How much each cell of scaled latents (B, T, C, H, W) counts in the loss: more where it changes; mean 1.

    Most of a clip stands still, and what melts is what moves.
    """
    change = (video - video[:, :1]).square().mean(dim=2, keepdim=True)
    weight = 1.0 + (MOVING_WEIGHT - 1.0) * change / (change + MOVING_CHANGE)
    return weight / weight.mean()


class EncodedTask:
    """What trainings on clips encoded once share: the data, which may still be growing; part of a `hogwild.Task`."""

    def __init__(self, data_folder: Path, scaling_factor: float, batch_size: int = BATCH_SIZE):
        self.data_folder = data_folder
        self.scaling_factor = scaling_factor
        self.batch_size = batch_size

    def prepare(self, device: str) -> None:
        self.num_parts, self.calls, self.device = 0, 0, device
        self._read_parts()

    def _read_parts(self) -> None:
        paths = sorted(self.data_folder.glob("part_*.pt"))
        if len(paths) > self.num_parts:
            parts = [torch.load(path, weights_only=True, mmap=True) for path in paths]
            self.data = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
            self.num_parts = len(paths)

    def _rows(self, generator: torch.Generator) -> torch.Tensor:
        """The numbers of the next batch's clips."""
        self.calls += 1
        if self.calls % 100 == 0:
            # Another process may still be encoding.
            self._read_parts()
        return torch.randint(len(next(iter(self.data.values()))), (self.batch_size,), generator=generator)

    def _uniform(self, generator: torch.Generator) -> torch.Tensor:
        return torch.rand(self.batch_size, generator=generator)


class ClipTask(EncodedTask):
    """What the trainings of CogVideoX share beside that: v-prediction. words are those of the captions."""

    words: tuple[str, ...] = vocabulary()
    # 1 draws all timesteps alike, less more of the noisy ones.
    timestep_power = 0.7

    def prepare(self, device: str) -> None:
        super().prepare(device)
        self.empty = tokenize(make_tokenizer(self.words), [""])
        scheduler = make_scheduler()
        self.sqrt_abar = scheduler.alphas_cumprod.sqrt().to(device)
        self.sqrt_rest = (1.0 - scheduler.alphas_cumprod).sqrt().to(device)

    def _draw(self, name: str, rows: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Scaled latents of some clips, drawn from their posteriors."""
        mean, std = self.data[f"{name}_mean"][rows].float(), self.data[f"{name}_std"][rows].float()
        return ((mean + std * torch.randn(mean.shape, generator=generator)) * self.scaling_factor).to(self.device)

    def _kept(self, left_out: float, generator: torch.Generator) -> torch.Tensor:
        """1 or 0 for each sample, (B, 1, 1, 1, 1)."""
        return (self._uniform(generator) >= left_out).float().to(self.device)[:, None, None, None, None]

    def _noise(
        self, video: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Random timesteps (B,), the video as noisy as they say, and its velocity."""
        timesteps = (1000 * self._uniform(generator) ** self.timestep_power).long().clamp(max=999).to(self.device)
        noise = torch.randn(video.shape, generator=generator).to(self.device)
        a, b = self._shares(timesteps)
        return timesteps, a * video + b * noise, a * noise - b * video

    def _shares(self, timesteps: torch.Tensor) -> list[torch.Tensor]:
        """How much of the video and of the noise there is at timesteps (B,), two times (B, 1, 1, 1, 1)."""
        return [table[timesteps][:, None, None, None, None] for table in (self.sqrt_abar, self.sqrt_rest)]


class BaseTask(ClipTask):
    """v-prediction on encoded clips; most captions name the action; `hogwild.Task`.

    The word is what separates the actions in the model. It is never given when an embedding is learned or used.
    """

    def make_module(self) -> torch.nn.Module:
        torch.manual_seed(0)
        text_encoder = make_text_encoder()
        return torch.nn.ModuleDict({"transformer": make_transformer(), "text_encoder": text_encoder})

    def loss(self, module: torch.nn.Module, generator: torch.Generator, progress: float) -> torch.Tensor:
        rows, data = self._rows(generator), self.data
        video, image = (self._draw(name, rows, generator) for name in ("video", "image"))
        image = image * self._kept(IMAGE_DROPOUT, generator)
        named = (self._uniform(generator) < WORD_SHARE)[:, None]
        tokens = torch.where(named, data["named"][rows], data["plain"][rows])
        untold = (self._uniform(generator) < CAPTION_DROPOUT)[:, None]
        tokens = torch.where(untold, self.empty, tokens).to(self.device)
        timesteps, noisy, true_velocity = self._noise(video, generator)
        velocity = self._velocity(module, noisy, image, tokens, timesteps)
        # (x0_pred - x0)^2 / (1 - abar) is the squared error of the velocity.
        return ((velocity - true_velocity).square() * moving_weight(video)).mean()

    def _velocity(
        self, module: torch.nn.Module, noisy: torch.Tensor, image: torch.Tensor, tokens: torch.Tensor,
        timesteps: torch.Tensor,
    ) -> torch.Tensor:  # fmt: skip
        condition = pad_image_latents(image, noisy.shape[1])
        # The fused attention is slow going backward on short sequences on a CPU.
        with sdpa_kernel(SDPBackend.MATH):
            text = module["text_encoder"](tokens)[0]
            predict = make_predict(module["transformer"], noisy.shape, noisy.device)
            return predict(noisy, condition, text.to(next(module.parameters()).dtype), timesteps)

    @torch.no_grad()
    def guess(self, module: torch.nn.Module, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Numbers (B,) of clips whose caption names an action, and what `module` takes them for at random timesteps:
        scaled latents (B, 5, 16, 8, 8)."""
        told = (self.data["named"] != self.data["plain"]).any(dim=-1).nonzero()[:, 0]
        rows = told[torch.randint(len(told), (self.batch_size,), generator=generator)]
        video, image = (self._draw(name, rows, generator) for name in ("video", "image"))
        timesteps, noisy, _ = self._noise(video, generator)
        velocity = self._velocity(module, noisy, image, self.data["named"][rows].to(self.device), timesteps)
        a, b = self._shares(timesteps)
        return rows, a * noisy - b * velocity
