"""Avatar frames to latents, and latents to frames, with the VAE of Stable Diffusion.

Shape letters: F frames, C channels, H W height and width in pixels, h w in latents.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ..errors import SettingError, ShapeError
from ..modules import OnPart, watch_calls
from ..video import check_frames, fit_frames
from .model import LATENT_CHANNELS

Fit = Literal["cover", "release"]
FITS = ("cover", "release")
# Of the authors' renders, 1280 x 720 pixels, only these rows are used.
RELEASED_ROWS, RELEASED_HEIGHT_PX, RELEASED_ASPECT = 500, 720, 16 / 9
CHUNK = 8  # frames in the VAE at a time, as in the release
# Of the VAE, what a long call can be stopped before: diffusers' class of its layers.
VAE_LAYER = "ResnetBlock2D"

# Red, green and blue of a latent of Stable Diffusion's VAE, a linear guess good enough for a preview.
_RGB = torch.tensor(
    [[0.3512, 0.2297, 0.3227], [0.3250, 0.4974, 0.2350], [-0.2829, 0.1762, 0.2721], [-0.2120, -0.2616, -0.7177]]
)
# A bright border of this share says that avatars do not stand on black.
BORDER_SHARE, BORDER_LEVEL = 0.2, 0.1


def fit_avatar(frames: Tensor, width_px: int, height_px: int, fit: Fit = "cover", name: str = "avatar") -> Tensor:
    """Frames (F, height_px, width_px, 3) in 0..1 from avatar frames (F, H, W, 1, 3 or 4); transparency is black.

    cover: scaled to cover the size and cut at the centre. release: as the authors do, by areas of whole pixels; of
    16:9 frames the middle 500 of 720 rows first.
    Raises ShapeError as check_frames() does, SettingError for another fit.
    """
    if fit not in FITS:
        raise SettingError(f"fit '{fit}': choose one of {', '.join(FITS)}.")
    if frames.ndim == 4 and frames.shape[-1] == 4:
        # AMG learned avatars on black.
        frames = frames[..., :3] * frames[..., 3:].clamp(0, 1)
    frames = check_frames(frames, name)
    return fit_frames(frames, width_px, height_px) if fit == "cover" else _fit_release(frames, width_px, height_px)


def check_avatar_size(width_px: int, height_px: int, step_px: int) -> None:
    """Passes if both sides are multiples of step_px. Raises SettingError naming the nearest that are."""
    for name, size in (("width", width_px), ("height", height_px)):
        if size < step_px or size % step_px:
            nearest = max(step_px, round(size / step_px) * step_px)
            raise SettingError(f"{name} {size}: AMG works in steps of {step_px} pixels. Nearest: {nearest}.")


def stands_on_black(frames: Tensor) -> bool:
    """Whether at most a fifth of the border of frames (F, H, W, 3) is brighter than a tenth."""
    border = torch.cat([frames[:, [0, -1]].flatten(0, 2), frames[:, :, [0, -1]].flatten(0, 2)])
    return bool((border.amax(-1) > BORDER_LEVEL).float().mean() <= BORDER_SHARE)


@torch.no_grad()
def encode_frames(vae, frames: Tensor, device: torch.device, on_part: OnPart | None = None) -> Tensor:
    """What the VAE says of frames (F, H, W, 3) in 0..1: means and log variances (F, 8, h, w), float32, on the CPU.

    on_part is called before each layer of each few frames with how many are done and of how many; it may raise to stop.
    """
    chunks = (frames.permute(0, 3, 1, 2) * 2 - 1).split(CHUNK)
    watched = watch_calls(vae, "encoder", VAE_LAYER, on_part, len(chunks))
    parts = [watched.encode(part.to(device, vae.dtype)).latent_dist.parameters.float().cpu() for part in chunks]
    return torch.cat(parts)


def draw_latents(parameters: Tensor, scaling_factor: float, generator: torch.Generator | None) -> Tensor:
    """Latents (1, 4, F, h, w) in the UNet's scale, drawn from what encode_frames() gave; without a generator, means.

    The release draws them.
    """
    mean, log_variance = parameters.chunk(2, dim=1)
    latents = mean
    if generator is not None:
        std = torch.exp(0.5 * log_variance.clamp(-30, 20))
        latents = mean + std * torch.randn(mean.shape, generator=generator)
    return frames_to_clip(latents * scaling_factor)


@torch.no_grad()
def decode_latents(vae, latents: Tensor, device: torch.device, on_part: OnPart | None = None) -> Tensor:
    """Frames (F, H, W, 3) in 0..1, float32, on the CPU, of latents (1, 4, F, h, w) in the UNet's scale.

    on_part is called as in encode_frames().
    """
    chunks = (clip_to_frames(latents) / vae.config.scaling_factor).split(CHUNK)
    watched = watch_calls(vae, "decoder", VAE_LAYER, on_part, len(chunks))
    parts = [watched.decode(part.to(device, vae.dtype)).sample.float().cpu() for part in chunks]
    return (torch.cat(parts) / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).contiguous()


def preview_frame(latents: Tensor, frame: int) -> Tensor:
    """A small picture (h, w, 3) in 0..1 of one frame of latents (1, 4, F, h, w)."""
    channels_last = latents[0, :, frame].float().cpu().permute(1, 2, 0)
    return ((channels_last @ _RGB + 1) / 2).clamp(0, 1)


def clip_to_frames(latents: Tensor) -> Tensor:
    """Latents (F, 4, h, w) of a clip's (1, 4, F, h, w)."""
    return latents[0].transpose(0, 1)


def frames_to_clip(latents: Tensor) -> Tensor:
    """Latents (1, 4, F, h, w) of a clip from its frames' (F, 4, h, w). Raises ShapeError for another layout."""
    if latents.ndim != 4 or latents.shape[1] != LATENT_CHANNELS:
        raise ShapeError(f"latents: frames x {LATENT_CHANNELS} x height x width expected, {list(latents.shape)} found.")
    return latents.transpose(0, 1)[None]


def _fit_release(frames: Tensor, width_px: int, height_px: int) -> Tensor:
    import numpy as np
    from PIL import Image

    _, height, width, _ = frames.shape
    if abs(width / height - RELEASED_ASPECT) < 0.01:
        rows = round(height * RELEASED_ROWS / RELEASED_HEIGHT_PX)
        top = (height - rows) // 2
        frames, height = frames[:, top : top + rows], rows
    scale = min(width / width_px, height / height_px)
    size = (max(width_px, round(width // scale)), max(height_px, round(height // scale)))
    left, top = (size[0] - width_px) // 2, (size[1] - height_px) // 2
    pictures = [Image.fromarray(picture) for picture in (frames * 255).round().byte().cpu().numpy()]
    cut = [
        np.array(picture.resize(size, Image.Resampling.BOX).crop((left, top, left + width_px, top + height_px)))
        for picture in pictures
    ]
    return torch.from_numpy(np.stack(cut)).float() / 255
