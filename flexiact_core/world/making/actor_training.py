"""How the transformer and the text encoder of the people's world are trained, on clips encoded once."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ...cogvideox.family import DYNAMICTRL
from ...cogvideox.model import pad_image_latents
from ...cogvideox.predict import make_predict
from ...cogvideox.processor import VideoAttention
from ...dynamictrl.pose_norm import PoseStream, pose_tokens, time_embedding
from ...video import to_model_pixels
from ..actor_render import draw_actor_poses, render_actor
from ..actors import NUM_FRAMES, Actor, Performance, actor_caption, actor_vocabulary, sample_actor, sample_performance
from .base_training import moving_weight, tokenize
from .models import make_posed_transformer, make_scheduler, make_text_encoder, make_tokenizer

if TYPE_CHECKING:
    from diffusers import AutoencoderKLCogVideoX

log = logging.getLogger(__name__)

# Shares of the samples that are not told something: then the others have to say it.
NO_POSE = 0.12
NO_ACTION_WORD = 0.5
NO_CAMERA_WORD = 0.3
NO_CAPTION = 0.08
NO_PICTURE = 0.03
TIMESTEP_POWER = 0.5
BATCH_SIZE = 16
# What each of a clip's four captions names beside the person: neither, the action, the camera, both.
SAID = ((False, False), (True, False), (False, True), (True, True))


def actor_clip(index: int) -> tuple[Actor, Performance, str | None, str | None]:
    """One of endlessly many training clips: who, what they do, and the names of action and camera if they have one."""
    rng = np.random.default_rng([index, 79])
    actor = sample_actor(int(rng.integers(2**31)))
    return actor, *sample_performance(rng)


@torch.no_grad()
def encode_actors(
    vae: AutoencoderKLCogVideoX, folder: Path, *, num_clips: int, rank: int = 0, workers: int = 1, part_size: int = 128
) -> None:
    """Encodes training clips into a folder, every workers-th part of them; parts that exist are kept.

    A part holds posteriors in float16, of clips and of their drawn poses (N, 6, 16, 8, 8), and of first frames
    (N, 1, 16, 8, 8), and four captions of each as tokens (N, 4, 16).
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer(actor_vocabulary())
    for first in range(rank * part_size, num_clips, workers * part_size):
        path = folder / f"part_{first:06d}.pt"
        if path.exists():
            continue
        columns: dict[str, list[Tensor]] = {}
        for index in range(first, min(first + part_size, num_clips)):
            for name, value in _encode(vae, tokenizer, index).items():
                columns.setdefault(name, []).append(value)
        part = path.with_suffix(".part")
        torch.save({name: torch.cat(values) for name, values in columns.items()}, part)
        os.replace(part, path)
        log.info("encoded %s", path.name)


def _encode(vae: AutoencoderKLCogVideoX, tokenizer, index: int) -> dict[str, Tensor]:
    actor, performance, action, camera = actor_clip(index)
    frames = render_actor(actor, performance)
    weight, encoded = next(vae.parameters()), {}
    for name, shown in (("video", frames), ("image", frames[:1]), ("pose", draw_actor_poses(actor, performance))):
        posterior = vae.encode(to_model_pixels(shown).to(weight.device, weight.dtype)).latent_dist
        encoded[f"{name}_mean"] = posterior.mean.transpose(1, 2).half().cpu()
        encoded[f"{name}_std"] = posterior.std.transpose(1, 2).half().cpu()
    words = [actor_caption(actor, action if act else None, camera if cam else None) for act, cam in SAID]
    return encoded | {"said": tokenize(tokenizer, words)[None]}


class ActorTask:
    """v-prediction on encoded clips with their drawn poses; `hogwild.Task`.

    Poses that are left out add nothing to any layer, as in a run without them.
    """

    def __init__(self, data_folder: Path, scaling_factor: float, batch_size: int = BATCH_SIZE):
        self.data_folder = data_folder
        self.scaling_factor = scaling_factor
        self.batch_size = batch_size

    def make_module(self) -> torch.nn.Module:
        torch.manual_seed(0)
        transformer = make_posed_transformer(NUM_FRAMES)
        for layer, block in enumerate(transformer.transformer_blocks):
            block.attn1.set_processor(VideoAttention(layer))
        return torch.nn.ModuleDict({"transformer": transformer, "text_encoder": make_text_encoder(actor_vocabulary())})

    def prepare(self, device: str) -> None:
        self.num_parts, self.calls, self.device = 0, 0, device
        self._read_parts()
        self.empty = tokenize(make_tokenizer(actor_vocabulary()), [""])
        scheduler = make_scheduler()
        self.sqrt_abar = scheduler.alphas_cumprod.sqrt().to(device)
        self.sqrt_rest = (1.0 - scheduler.alphas_cumprod).sqrt().to(device)

    def _read_parts(self) -> None:
        paths = sorted(self.data_folder.glob("part_*.pt"))
        if len(paths) > self.num_parts:
            parts = [torch.load(path, weights_only=True, mmap=True) for path in paths]
            self.data = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
            self.num_parts = len(paths)

    def loss(self, module: torch.nn.Module, generator: torch.Generator, progress: float) -> Tensor:
        self.calls += 1
        if self.calls % 100 == 0:
            # Another process may still be encoding.
            self._read_parts()
        size, transformer = self.batch_size, module["transformer"]
        rows = torch.randint(len(self.data["said"]), (size,), generator=generator)
        video, image, pose = (self._draw(name, rows, generator) for name in ("video", "image", "pose"))
        image = image * self._kept(NO_PICTURE, generator)
        timesteps = (1000 * torch.rand(size, generator=generator) ** TIMESTEP_POWER).long().clamp(max=999)
        timesteps = timesteps.to(self.device)
        noise = torch.randn(video.shape, generator=generator).to(self.device)
        a, b = (table[timesteps][:, None, None, None, None] for table in (self.sqrt_abar, self.sqrt_rest))
        dtype = next(module.parameters()).dtype
        with sdpa_kernel(SDPBackend.MATH):
            text = module["text_encoder"](self._captions(rows, generator))[0].to(dtype)
            temb = time_embedding(transformer, timesteps, DYNAMICTRL.ofs, dtype)
            stream = PoseStream(transformer.transformer_blocks, pose_tokens(transformer, pose.to(dtype)), temb)
            poses = _Kept(stream, self._kept(NO_POSE, generator)[:, 0, 0].to(dtype))
            predict = make_predict(transformer, video.shape, video.device)
            condition = pad_image_latents(image, video.shape[1])
            velocity = predict(a * video + b * noise, condition, text, timesteps, {"pose": poses})
        error = (velocity - (a * noise - b * video)).square()
        return (error * moving_weight(video)).mean()

    def _draw(self, name: str, rows: Tensor, generator: torch.Generator) -> Tensor:
        mean, std = self.data[f"{name}_mean"][rows].float(), self.data[f"{name}_std"][rows].float()
        return ((mean + std * torch.randn(mean.shape, generator=generator)) * self.scaling_factor).to(self.device)

    def _kept(self, left_out: float, generator: torch.Generator) -> Tensor:
        """1 or 0 for each sample, (B, 1, 1, 1, 1)."""
        kept = torch.rand(self.batch_size, generator=generator) >= left_out
        return kept.float().to(self.device)[:, None, None, None, None]

    def _captions(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        no_action, no_camera, none = torch.rand(3, self.batch_size, generator=generator)
        which = (no_action >= NO_ACTION_WORD).long() + 2 * (no_camera >= NO_CAMERA_WORD).long()
        tokens = torch.where((none < NO_CAPTION)[:, None], self.empty, self.data["said"][rows, which])
        return tokens.to(self.device)


class _Kept:
    """A pose stream that adds nothing to some of the samples."""

    def __init__(self, stream: PoseStream, kept: Tensor):
        self.stream, self.kept = stream, kept

    def at(self, layer: int) -> Tensor:
        return self.stream.at(layer) * self.kept
