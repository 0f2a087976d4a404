"""How the small world's transformer and text encoder are trained, on clips encoded once."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
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
from ..scenes import Scene, caption, sample_scene
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
IMAGE_DROPOUT = 0.05
TIMESTEP_POWER = 0.5
BATCH_SIZE = 16
MOVING_WEIGHT = 4.0
# The mean squared change of a scaled latent at which its weight is half way.
MOVING_CHANGE = 0.25


def training_clip(index: int) -> tuple[Scene, Motion, str | None]:
    """Scene and motion of one of endlessly many training clips, and the name of its action if it has one."""
    rng = np.random.default_rng([index, 77])
    scene = sample_scene(int(rng.integers(2**31)))
    motion, action = sample_motion(rng, MEDLEY_SHARE, STILL_SHARE)
    return scene, motion, action


def encode_data(
    vae: AutoencoderKLCogVideoX, folder: Path, *, num_clips: int, device: str, workers: int, part_size: int = 512
) -> Path:
    """The folder with `num_clips` encoded training clips, in parts; parts that exist are kept.

    A part holds posteriors in float16, the clips' (N, 5, 16, 8, 8) and their first frames' (N, 1, 16, 8, 8), and
    captions as tokens, without and with the action's word.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = [
        (folder / f"part_{first:06d}.pt", first, min(part_size, num_clips - first))
        for first in range(0, num_clips, part_size)
    ]
    missing = [part for part in parts if not part[0].exists()]
    workers = workers if device == "cpu" else 1
    if missing and workers == 1:
        _encode_parts(0, vae, missing, device, 1)
    elif missing:
        torch.multiprocessing.spawn(_encode_parts, args=(vae, missing, device, workers), nprocs=workers)
    return folder


@torch.no_grad()
def _encode_parts(
    rank: int, vae: AutoencoderKLCogVideoX, parts: Sequence[tuple[Path, int, int]], device: str, workers: int
) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    if device == "cpu":
        torch.set_num_threads(1)
    dtype = faster_format(device)
    vae = vae.to(device, dtype)
    tokenizer = make_tokenizer()
    for path, first, count in parts[rank::workers]:
        columns: dict[str, list[torch.Tensor]] = {}
        plain, named = [], []
        for index in range(first, first + count):
            scene, motion, action = training_clip(index)
            pixels = to_model_pixels(torch.from_numpy(render_frames(scene, motion)))
            pixels = pixels.to(device, dtype)
            for name, part in (("video", pixels), ("image", pixels[:, :, :1])):
                posterior = vae.encode(part).latent_dist
                columns.setdefault(f"{name}_mean", []).append(posterior.mean.transpose(1, 2).half().cpu())
                columns.setdefault(f"{name}_std", []).append(posterior.std.transpose(1, 2).half().cpu())
            plain.append(caption(scene))
            named.append(caption(scene, action))
        data = {name: torch.cat(values) for name, values in columns.items()}
        for name, texts in (("plain", plain), ("named", named)):
            data[name] = tokenize(tokenizer, texts)
        part = path.with_suffix(".part")
        torch.save(data, part)
        os.replace(part, path)
        log.info("encoded %s", path.name)


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


class BaseTask:
    """v-prediction on encoded clips; most captions name the action; `hogwild.Task`.

    The word is what separates the actions in the model. It is never given when an embedding is learned or used.
    """

    def __init__(self, data_folder: Path, scaling_factor: float, batch_size: int = BATCH_SIZE):
        self.data_folder = data_folder
        self.scaling_factor = scaling_factor
        self.batch_size = batch_size

    def make_module(self) -> torch.nn.Module:
        torch.manual_seed(0)
        text_encoder = make_text_encoder()
        return torch.nn.ModuleDict({"transformer": make_transformer(), "text_encoder": text_encoder})

    def prepare(self, device: str) -> None:
        self.num_parts, self.calls = 0, 0
        self._read_parts()
        self.empty = tokenize(make_tokenizer(), [""])
        self.device = device
        scheduler = make_scheduler()
        self.sqrt_abar = scheduler.alphas_cumprod.sqrt().to(device)
        self.sqrt_rest = (1.0 - scheduler.alphas_cumprod).sqrt().to(device)

    def _read_parts(self) -> None:
        paths = sorted(self.data_folder.glob("part_*.pt"))
        if len(paths) > self.num_parts:
            parts = [torch.load(path, weights_only=True, mmap=True) for path in paths]
            self.data = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
            self.num_parts = len(paths)

    def loss(self, module: torch.nn.Module, generator: torch.Generator, progress: float) -> torch.Tensor:
        self.calls += 1
        if self.calls % 100 == 0:
            # Another process may still be encoding.
            self._read_parts()
        data, size = self.data, self.batch_size

        def uniform() -> torch.Tensor:
            return torch.rand(size, generator=generator)

        def draw(name: str) -> torch.Tensor:
            mean, std = data[f"{name}_mean"][rows].float(), data[f"{name}_std"][rows].float()
            latents = mean + std * torch.randn(mean.shape, generator=generator)
            return (latents * self.scaling_factor).to(self.device)

        rows = torch.randint(len(data["plain"]), (size,), generator=generator)
        video, image = draw("video"), draw("image")
        image = image * (uniform() >= IMAGE_DROPOUT).to(self.device)[:, None, None, None, None]
        tokens = torch.where((uniform() < WORD_SHARE)[:, None], data["named"][rows], data["plain"][rows])
        tokens = torch.where((uniform() < CAPTION_DROPOUT)[:, None], self.empty, tokens).to(self.device)
        timesteps = (1000 * uniform() ** TIMESTEP_POWER).long().clamp(max=999).to(self.device)
        noise = torch.randn(video.shape, generator=generator).to(self.device)

        a = self.sqrt_abar[timesteps][:, None, None, None, None]
        b = self.sqrt_rest[timesteps][:, None, None, None, None]
        condition = pad_image_latents(image, video.shape[1])
        # The fused attention is slow going backward on short sequences on a CPU.
        with sdpa_kernel(SDPBackend.MATH):
            text = module["text_encoder"](tokens)[0]
            predict = make_predict(module["transformer"], video.shape, video.device)
            velocity = predict(a * video + b * noise, condition, text.to(next(module.parameters()).dtype), timesteps)
        # (x0_pred - x0)^2 / (1 - abar) is the squared error of the velocity.
        error = (velocity - (a * noise - b * video)).square()
        return (error * moving_weight(video)).mean()
