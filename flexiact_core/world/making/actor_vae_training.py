"""How the VAE of the people's world is trained: on clips, crops and pictures of people, and on drawn poses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ...metrics.video import psnr_db
from ..actor_render import actor_mask, draw_actor_poses, render_actor
from ..actors import FRAME_PX, Actor, Performance, sample_actor, sample_performance
from .models import make_vae
from .vae_training import reconstruction_loss, scale_of, through

if TYPE_CHECKING:
    from diffusers import AutoencoderKLCogVideoX

PERSON_WEIGHT = 6.0
# Drawn poses only have to be told apart; pictures have to look right.
DRAWING_WEIGHT = 0.3
CROP_PX = 32


class ActorVAETask:
    """Reconstruction of people and of drawn poses, from a trained VAE on; `hogwild.Task`.

    All but single pictures have 8k+5 frames, an even number of latents, which decode to three frames more.
    """

    def make_module(self) -> torch.nn.Module:
        return make_vae()

    def prepare(self, device: str) -> None:
        self.device = device

    def _batch(self, rng: np.random.Generator, progress: float) -> tuple[Tensor, Tensor]:
        """Pixels (B, 3, T, H, W) in -1..1 and how much each counts (B, 1, T, H, W)."""
        draw, whole = rng.uniform(), 0.25 if progress < 0.5 else 0.5
        if draw < 0.15:
            return _stack([_piece(rng, 1, FRAME_PX, rng.uniform() < 0.15) for _ in range(8)])
        if draw < 0.15 + whole:
            return _stack([_piece(rng, 13, FRAME_PX, rng.uniform() < 0.15)])
        return _stack([_piece(rng, 5, CROP_PX, rng.uniform() < 0.1) for _ in range(8)])

    def loss(self, module: torch.nn.Module, generator: torch.Generator, progress: float) -> Tensor:
        rng = np.random.default_rng(int(torch.randint(2**31, (1,), generator=generator)))
        pixels, weight = (value.to(self.device) for value in self._batch(rng, progress))
        dtype = next(module.parameters()).dtype
        posterior = module.encode(pixels.to(dtype)).latent_dist
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        latents = mean + torch.exp(0.5 * logvar) * torch.randn(mean.shape, generator=generator).to(mean.device)
        error = module.decode(latents.to(dtype)).sample.float()[:, :, -pixels.shape[2] :] - pixels
        return reconstruction_loss(error, weight, mean, logvar)


def _piece(rng: np.random.Generator, frames: int, side: int, drawn: bool) -> tuple[Tensor, Tensor]:
    """A stretch (T, side, side, 3) in 0..1 of a clip, or of its drawn poses, and how much each pixel counts."""
    actor = sample_actor(int(rng.integers(2**31)))
    performance = sample_performance(rng)[0]
    first = int(rng.integers(0, len(performance.pan) - frames + 1))
    part = Performance(performance.postures[first : first + frames], performance.pan[first : first + frames])
    pixels = draw_actor_poses(actor, part) if drawn else render_actor(actor, part)
    mask = actor_mask(actor, part, margin_px=3.0)
    weight = (1.0 + (PERSON_WEIGHT - 1.0) * mask.float()) * (DRAWING_WEIGHT if drawn else 1.0)
    rows, columns = np.nonzero(mask.any(0).numpy())
    spot = int(rng.integers(len(rows)))
    top, left = (int(np.clip(place[spot] - side // 2, 0, FRAME_PX - side)) // 8 * 8 for place in (rows, columns))
    window = (slice(None), slice(top, top + side), slice(left, left + side))
    return pixels[window], weight[window]


def _stack(pieces: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    pixels = torch.stack([piece[0] for piece in pieces]).permute(0, 4, 1, 2, 3) * 2.0 - 1.0
    weight = torch.stack([piece[1] for piece in pieces])[:, None]
    return pixels, weight / (1.0 + 0.4 * (PERSON_WEIGHT - 1.0))


@torch.no_grad()
def measure_actor_vae(vae: AutoencoderKLCogVideoX, num_clips: int = 12, seed: int = 10**6) -> dict[str, float]:
    """PSNR in dB of clips through the VAE: over the frame, around people (2 px margin), and of drawn poses."""
    errors: dict[str, list[float]] = {"psnr_db": [], "person_psnr_db": [], "drawing_psnr_db": []}
    for index in range(num_clips):
        actor, performance = _held_out(seed + index)
        frames = render_actor(actor, performance)
        squared = (through(vae, frames) - frames).square()
        errors["psnr_db"].append(float(squared.mean()))
        errors["person_psnr_db"].append(float(squared[actor_mask(actor, performance)].mean()))
        drawing = draw_actor_poses(actor, performance)
        errors["drawing_psnr_db"].append(float((through(vae, drawing) - drawing).square().mean()))
    return {name: psnr_db(float(np.mean(values))) for name, values in errors.items()}


def _held_out(seed: int) -> tuple[Actor, Performance]:
    return sample_actor(seed), sample_performance(np.random.default_rng([seed, 6]))[0]


def actor_latent_scale(vae: AutoencoderKLCogVideoX, num_clips: int = 16) -> float:
    """scale_of() clips of people."""
    return scale_of(vae, (render_actor(*_held_out(2 * 10**6 + index)) for index in range(num_clips)))
