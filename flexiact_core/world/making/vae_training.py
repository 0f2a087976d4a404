"""How the small world's VAE is trained."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch

from ...metrics.video import psnr_db
from ...video import to_frames, to_model_pixels
from ..actions import Motion, sample_motion
from ..render import render_frames, sprite_mask, track_of
from ..scenes import FRAME_PX, Scene, in_any_colour, in_any_pose, sample_scene
from .base_training import BaseTask, training_clip
from .hogwild import faster_format
from .models import make_vae

if TYPE_CHECKING:
    from diffusers import AutoencoderKLCogVideoX
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

log = logging.getLogger(__name__)

VAE = TypeVar("VAE", bound=torch.nn.Module)

SPRITE_WEIGHT = 6.0
KL_WEIGHT = 5e-4
# Share of the batches whose latents are moved and resized before they are decoded. The picture has to move with them
# (EQ-VAE, arXiv 2502.09509): a subject then looks alike in every place, and a base has less to learn.
MOVED_SHARE = 0.3
# The most noise a latent is decoded with, against the standard deviation of latents. What a base of this size makes is
# wrong by about 0.1, five times what the posterior itself is unsure of; a decoder that never saw such latents lets
# subjects melt.
LATENT_NOISE = 0.15
# Share of the decoder's own training that a base guesses.
GUESSED_SHARE = 0.5


class VAETask:
    """Reconstruction of clips, crops of clips and single pictures; `hogwild.Task`.

    Single pictures are a part of the batches throughout: without them a small causal VAE stays at gray.
    trained: whether the VAE can draw already; a fresh one gets more single pictures and small crops at first.
    """

    def __init__(self, trained: bool = False):
        self.trained = trained

    def make_module(self) -> torch.nn.Module:
        return make_vae()

    def prepare(self, device: str) -> None:
        self.device = device

    def _clip(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """A clip (17, 64, 64, 3) and where it counts most (17, 64, 64), half of them in any pose, place and colour."""
        scene = sample_scene(int(rng.integers(2**31)))
        if rng.uniform() < 0.5:
            scene = in_any_pose(in_any_colour(scene, rng), rng)
        return _draw_clip(scene, sample_motion(rng, medley_share=0.3)[0])

    def _encode(self, module: AutoencoderKLCogVideoX, pixels: torch.Tensor) -> DiagonalGaussianDistribution:
        return module.encode(pixels.to(next(module.parameters()).dtype)).latent_dist

    def _batch(self, generator: torch.Generator, progress: float) -> tuple[torch.Tensor, torch.Tensor]:
        rng = np.random.default_rng(int(torch.randint(2**31, (1,), generator=generator)))
        draw = rng.uniform()
        clips, masks = [], []
        if draw < (0.5 if progress < 0.15 else 0.2):
            for _ in range(16):
                frames, mask = self._clip(rng)
                t = rng.integers(len(frames))
                clips.append(frames[t : t + 1])
                masks.append(mask[t : t + 1])
        elif progress < 0.3 or draw < 0.35:
            # Small crops give many different batches a second.
            for _ in range(6):
                frames, mask = self._clip(rng)
                rows, columns = np.nonzero(mask.any(axis=0))
                top = int(np.clip(rng.choice(rows) - 16, 0, FRAME_PX - 32)) // 8 * 8
                left = int(np.clip(rng.choice(columns) - 16, 0, FRAME_PX - 32)) // 8 * 8
                first = int(rng.integers(0, 9))
                window = (slice(first, first + 9), slice(top, top + 32), slice(left, left + 32))
                clips.append(frames[window])
                masks.append(mask[window])
        else:
            for _ in range(2):
                frames, mask = self._clip(rng)
                clips.append(frames)
                masks.append(mask)
        return self._tensors(clips, masks)

    def _tensors(self, clips: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        pixels = torch.from_numpy(np.stack(clips)).permute(0, 4, 1, 2, 3) * 2.0 - 1.0
        weight = 1.0 + (SPRITE_WEIGHT - 1.0) * torch.from_numpy(np.stack(masks)).float()[:, None]
        return pixels.to(self.device), weight.to(self.device)

    def loss(self, module: torch.nn.Module, generator: torch.Generator, progress: float) -> torch.Tensor:
        pixels, weight = self._batch(generator, max(progress, 0.3) if self.trained else progress)
        posterior = self._encode(module, pixels)
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        noise = torch.randn(mean.shape, generator=generator).to(mean.device)
        extra = LATENT_NOISE * float(torch.rand((), generator=generator)) * mean.detach().std()
        latents = mean + (logvar.exp() + extra**2).sqrt() * noise
        if torch.rand((), generator=generator) < MOVED_SHARE:
            latents, pixels, weight = move_together(generator, latents, pixels, weight)
        decoded = module.decode(latents.to(next(module.parameters()).dtype)).sample.float()
        return reconstruction_loss(decoded - pixels, weight / weight.mean(), mean, logvar)


def reconstruction_loss(
    error: torch.Tensor, weight: torch.Tensor, mean: torch.Tensor, logvar: torch.Tensor
) -> torch.Tensor:
    """What a VAE is trained on: the error of its pixels (B, C, T, H, W), weighted, and the KL of its posterior."""
    kl = 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).mean()
    return pixel_loss(error, weight) + KL_WEIGHT * kl


def pixel_loss(error: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The error of pixels (B, C, T, H, W), weighted, and that of the differences between neighbours."""
    itself = (weight * (error.abs() + 4.0 * error.square())).mean()
    # Differences between neighbours keep outlines from going soft.
    edge_loss = (weight[..., 1:] * (error[..., 1:] - error[..., :-1]).abs()).mean()
    edge_loss = edge_loss + (weight[..., 1:, :] * (error[..., 1:, :] - error[..., :-1, :]).abs()).mean()
    return itself + 0.5 * edge_loss


def _draw_clip(scene: Scene, motion: Motion) -> tuple[np.ndarray, np.ndarray]:
    """A clip (17, 64, 64, 3) and where it counts most (17, 64, 64)."""
    return render_frames(scene, motion), sprite_mask(scene, track_of(scene, motion), margin_px=3.0)


def move_together(generator: torch.Generator, *videos: torch.Tensor) -> list[torch.Tensor]:
    """Videos (B, C, T, H, W) of any sizes, all moved by up to 12 % of the picture and resized by up to 25 % alike."""
    draw = 2 * torch.rand(3, generator=generator) - 1
    scale, (right, down) = 1.25 ** draw[0], 0.24 * draw[1:]
    theta = torch.stack([scale, scale * 0, right, scale * 0, scale, down]).reshape(1, 2, 3)
    moved = []
    for video in videos:
        frames = video.transpose(1, 2).flatten(0, 1)
        places = torch.nn.functional.affine_grid(theta.expand(len(frames), 2, 3), frames.shape, align_corners=False)
        frames = torch.nn.functional.grid_sample(
            frames, places.to(frames.device), padding_mode="border", align_corners=False
        )
        moved.append(frames.unflatten(0, (video.shape[0], video.shape[2])).transpose(1, 2))
    return moved


class DecoderTask(VAETask):
    """More training of the decoder alone, on what it will be given: half of the batches are videos as a trained base
    guesses them; `hogwild.Task`.

    The latents stay what they are, so the base and the embeddings need not be trained again.

    vae, base: checkpoints of both. guesses: the base's training, on encoded clips.
    """

    def __init__(self, vae: Path, base: Path, guesses: BaseTask):
        super().__init__(trained=True)
        self.vae, self.base, self.guesses = vae, base, guesses

    def make_module(self) -> torch.nn.Module:
        vae = make_vae()
        vae.load_state_dict(torch.load(self.vae, weights_only=True)["ema"])
        vae.encoder.requires_grad_(False)
        return vae

    def prepare(self, device: str) -> None:
        super().prepare(device)
        self.guesses.prepare(device)
        self.guesser = self.guesses.make_module()
        self.guesser.load_state_dict(torch.load(self.base, weights_only=True)["ema"])
        self.guesser.to(device, faster_format(device)).requires_grad_(False)

    @torch.no_grad()
    def _encode(self, module: AutoencoderKLCogVideoX, pixels: torch.Tensor) -> DiagonalGaussianDistribution:
        return super()._encode(module, pixels)

    def loss(self, module: torch.nn.Module, generator: torch.Generator, progress: float) -> torch.Tensor:
        if torch.rand((), generator=generator) >= GUESSED_SHARE:
            return super().loss(module, generator, progress)
        rows, latents = self.guesses.guess(self.guesser, generator)
        drawn = [_draw_clip(*training_clip(int(row))[:2]) for row in rows]
        pixels, weight = self._tensors(*zip(*drawn, strict=True))
        latents = latents.transpose(1, 2) / self.guesses.scaling_factor
        decoded = module.decode(latents.to(next(module.parameters()).dtype)).sample.float()
        return pixel_loss(decoded - pixels, weight / weight.mean())


@torch.no_grad()
def measure_vae(vae: AutoencoderKLCogVideoX, num_clips: int = 16, seed: int = 10**6) -> dict[str, float]:
    """PSNR in dB of clips through the VAE: over the frame, and around sprites only (2 px margin)."""
    rng = np.random.default_rng(seed)
    whole, sprite = [], []
    for _ in range(num_clips):
        scene = sample_scene(int(rng.integers(2**31)))
        motion, _ = sample_motion(rng, medley_share=0.0)
        frames = torch.from_numpy(render_frames(scene, motion))
        error = (through(vae, frames) - frames).square().numpy()
        whole.append(error.mean())
        sprite.append(error[sprite_mask(scene, track_of(scene, motion))].mean())
    return {"psnr_db": psnr_db(np.mean(whole)), "sprite_psnr_db": psnr_db(np.mean(sprite))}


def latent_scale(vae: AutoencoderKLCogVideoX, num_clips: int = 32) -> float:
    """scale_of() clips of the small world."""
    rng = np.random.default_rng(2 * 10**6)

    def draw_clip() -> torch.Tensor:
        motion, _ = sample_motion(rng, medley_share=0.0)
        return torch.from_numpy(render_frames(sample_scene(int(rng.integers(2**31))), motion))

    return scale_of(vae, (draw_clip() for _ in range(num_clips)))


def through(vae: AutoencoderKLCogVideoX, frames: torch.Tensor) -> torch.Tensor:
    """Frames (T, H, W, 3) in 0..1 encoded and decoded. Where latents decode to more frames, the last T."""
    return to_frames(vae.decode(_mode(vae, frames)).sample).cpu()[-len(frames) :]


@torch.no_grad()
def scale_of(vae: AutoencoderKLCogVideoX, clips: Iterable[torch.Tensor]) -> float:
    """1 / standard deviation of the VAE's latents of clips (T, H, W, 3) in 0..1, its scaling_factor."""
    return 1.0 / float(torch.cat([_mode(vae, frames).float().cpu() for frames in clips]).std())


def _mode(vae: AutoencoderKLCogVideoX, frames: torch.Tensor) -> torch.Tensor:
    weight = next(vae.parameters())
    return vae.encode(to_model_pixels(frames).to(weight.device, weight.dtype)).latent_dist.mode()


def read_vae(
    checkpoint: Path, scale_file: Path, measure: Callable[[VAE], dict[str, float]], make: Callable[[], VAE] = make_vae
) -> VAE:
    """The VAE of a training's checkpoint, as `make` made it, float32, with its scaling factor set.

    The factor is in scale_file; where that is not there, it is written, with all else that `measure` says of the VAE.
    """
    vae = make()
    vae.load_state_dict(torch.load(checkpoint, weights_only=True)["ema"])
    vae.eval().requires_grad_(False)
    if not scale_file.exists():
        measured = measure(copy.deepcopy(vae).to(faster_format()))
        scale_file.write_text(json.dumps(measured))
        log.info("%s: %s", checkpoint.stem, measured)
    vae.register_to_config(scaling_factor=json.loads(scale_file.read_text())["scaling_factor"])
    return vae
