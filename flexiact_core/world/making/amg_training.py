"""How the small AMG is trained: its VAE on single frames, then UNet and text encoder on takes encoded once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ...amg.pictures import decode_latents, draw_latents, encode_frames
from ...amg.sampling import NUM_TIMESTEPS, make_scheduler
from ...amg.text import tokenize
from ...metrics.video import psnr_db
from ..actors import FIRST_HELD_OUT
from ..takes import moments_of, render_avatar, render_take, sample_take, take_caption, take_mask, take_vocabulary
from .amg_models import TEXT_TOKENS, make_amg_text_encoder, make_amg_tokenizer, make_amg_unet, make_amg_vae
from .base_training import EncodedTask, encode_data
from .vae_training import reconstruction_loss

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

CPU = torch.device("cpu")
PERSON_WEIGHT = 5.0
VAE_BATCH = 16
AVATAR_SHARE = 0.4
NO_CAPTION = 0.1
# The error of the noise says little of the video where there is hardly anything but noise; there it counts more.
MOST_WEIGHT = 40.0


class AMGVAETask:
    """Reconstruction of single frames of takes, dressed and gray; `hogwild.Task`."""

    def make_module(self) -> torch.nn.Module:
        torch.manual_seed(0)
        return make_amg_vae()

    def prepare(self, device: str) -> None:
        self.device = device

    def _batch(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Pixels (B, 3, 64, 64) in -1..1 and how much each counts (B, 1, 64, 64), mean 1."""
        pictures, masks = [], []
        while len(pictures) < VAE_BATCH:
            take = sample_take(int(rng.integers(2**31)))
            # Frames of a take are much alike.
            take = moments_of(take, rng.permutation(len(take.shot.pan))[:2])
            render = render_avatar if rng.uniform() < AVATAR_SHARE else render_take
            pictures += list(render(take))
            masks += list(take_mask(take))
        weight = 1.0 + (PERSON_WEIGHT - 1.0) * _wider(torch.stack(masks))[:, None].float()
        pixels = torch.stack(pictures).permute(0, 3, 1, 2) * 2.0 - 1.0
        return pixels.to(self.device), (weight / weight.mean()).to(self.device)

    def loss(self, module: torch.nn.Module, generator: torch.Generator, progress: float) -> Tensor:
        rng = np.random.default_rng(int(torch.randint(2**31, (1,), generator=generator)))
        pixels, weight = self._batch(rng)
        dtype = next(module.parameters()).dtype
        posterior = module.encode(pixels.to(dtype)).latent_dist
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        latents = mean + torch.exp(0.5 * logvar) * torch.randn(mean.shape, generator=generator).to(mean.device)
        error = module.decode(latents.to(dtype)).sample.float() - pixels
        return reconstruction_loss(error, weight, mean, logvar)


def _wider(masks: Tensor) -> Tensor:
    """Masks (B, H, W) with a margin of 2 px, bool."""
    return torch.nn.functional.max_pool2d(masks[:, None].float(), 5, 1, 2)[:, 0] > 0


@torch.no_grad()
def measure_amg_vae(vae: AutoencoderKL, num_takes: int = 16, seed: int = FIRST_HELD_OUT) -> dict[str, float]:
    """The VAE's scaling factor, and PSNR in dB through it: over the frame, around people (2 px margin), of avatars."""
    spread, errors = [], {"psnr_db": [], "person_psnr_db": [], "avatar_psnr_db": []}
    for number in range(num_takes):
        take = sample_take(seed + number)
        squared = {}
        for name, frames in {"video": render_take(take), "avatar": render_avatar(take)}.items():
            latents = draw_latents(encode_frames(vae, frames, CPU), vae.config.scaling_factor, None)
            squared[name] = (decode_latents(vae, latents, CPU) - frames).square()
            if name == "video":
                spread.append(latents)
        errors["psnr_db"].append(float(squared["video"].mean()))
        errors["person_psnr_db"].append(float(squared["video"][_wider(take_mask(take))].mean()))
        errors["avatar_psnr_db"].append(float(squared["avatar"].mean()))
    measured = {name: psnr_db(float(np.mean(values))) for name, values in errors.items()}
    return {"scaling_factor": vae.config.scaling_factor / float(torch.cat(spread).std())} | measured


def encode_takes(
    vae: AutoencoderKL, folder: Path, *, num_clips: int, device: str, workers: int, part_size: int = 128
) -> None:
    """Encodes training takes into a folder, as encode_data() does."""
    encode_data(
        vae, folder, _encode, take_vocabulary(), num_clips=num_clips, device=device, workers=workers,
        part_size=part_size,
    )  # fmt: skip


def _encode(vae: AutoencoderKL, _: object, index: int) -> dict[str, Tensor]:
    """What the VAE says of a take's video and avatar, float16 (1, 8, 8, 8, 8), and its caption's tokens (1, 16)."""
    take, device = sample_take(index), next(vae.parameters()).device
    both = torch.cat([render_take(take), render_avatar(take)])
    video, avatar = encode_frames(vae, both, device).half().chunk(2)
    return {"video": video[None], "avatar": avatar[None], "said": _tokens(take_caption(take))}


def _tokens(caption: str) -> Tensor:
    return tokenize(make_amg_tokenizer(), caption, TEXT_TOKENS)


class AMGTask(EncodedTask):
    """The noise in takes, as the release predicts it, from their avatars and captions; `hogwild.Task`."""

    def make_module(self) -> torch.nn.Module:
        torch.manual_seed(0)
        return torch.nn.ModuleDict({"unet": make_amg_unet(), "text_encoder": make_amg_text_encoder()})

    def prepare(self, device: str) -> None:
        super().prepare(device)
        self.empty, self.scheduler = _tokens(""), make_scheduler()

    def loss(self, module: torch.nn.Module, generator: torch.Generator, progress: float) -> Tensor:
        rows = self._rows(generator)
        video, avatar = (self._draw(name, rows, generator) for name in ("video", "avatar"))
        untold = self._uniform(generator) < NO_CAPTION
        tokens = torch.where(untold[:, None], self.empty, self.data["said"][rows]).to(self.device)
        timesteps = torch.randint(NUM_TIMESTEPS, (self.batch_size,), generator=generator)
        noise = torch.randn(video.shape, generator=generator)
        noisy = self.scheduler.add_noise(video, noise, timesteps)
        weight = (1 / self.scheduler.alphas_cumprod[timesteps]).clamp(max=MOST_WEIGHT)
        dtype = next(module.parameters()).dtype
        text = module["text_encoder"](tokens).last_hidden_state.to(dtype)
        model_input = torch.cat([noisy, avatar], dim=1).to(self.device, dtype)
        # The fused attention is slow going backward on short sequences on a CPU.
        with sdpa_kernel(SDPBackend.MATH):
            predicted = module["unet"](model_input, timesteps.to(self.device), encoder_hidden_states=text).sample
        error = (predicted.float() - noise.to(self.device)).square().mean((1, 2, 3, 4))
        return (error * weight.to(self.device)).mean()

    def _draw(self, name: str, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Latents (B, 4, F, h, w) in the UNet's scale."""
        parameters = self.data[name][rows].float()
        clips = draw_latents(parameters.flatten(0, 1), self.scaling_factor, generator)[0]
        return clips.unflatten(1, parameters.shape[:2]).transpose(0, 1)
