"""Pixels: ranges, layouts and sizes.

Shape letters: B batch, T frames, C channels, H height, W width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from .errors import ShapeError


def check_frames(frames: Tensor, name: str, smallest_px: int = 1) -> Tensor:
    """RGB frames (T, H, W, 3) in 0..1 from frames with 1, 3 or 4 channels.

    Transparent pixels are laid over white, grey ones are repeated on three channels, and values outside 0..1
    are clamped. `name` is what the message calls the input.
    Raises ShapeError if the layout is another, a side is under smallest_px, or a value is not a number.
    """
    if frames.ndim != 4:
        raise ShapeError(
            f"{name}: frames x height x width x channels expected, {frames.ndim} dimensions found "
            f"({list(frames.shape)}). Connect an IMAGE output."
        )
    num_frames, height_px, width_px, channels = frames.shape
    if num_frames == 0:
        raise ShapeError(f"{name}: no frame in it. Connect an image or a video that has at least one.")
    if channels not in (1, 3, 4):
        raise ShapeError(f"{name}: {channels} channels found; grey (1), RGB (3) or RGBA (4) expected.")
    if min(height_px, width_px) < smallest_px:
        raise ShapeError(
            f"{name}: {width_px}x{height_px} pixels is too small; at least {smallest_px}x{smallest_px} is needed."
        )
    if not torch.isfinite(frames).all():
        raise ShapeError(
            f"{name}: some pixels are not numbers (NaN or infinite). Look at the node that makes the picture."
        )
    frames = frames.float().clamp(0, 1)
    if channels == 1:
        return frames.expand(-1, -1, -1, 3)
    if channels == 4:
        opacity = frames[..., 3:]
        return frames[..., :3] * opacity + (1 - opacity)
    return frames


def check_measurable(frames: Tensor, num_frames: int, size_px: int, whose: str) -> Tensor:
    """Frames (T, H, W, 3) of a small model, float32, if they are as many and as large as its measure reads.

    Raises ShapeError otherwise; `whose` is what the message calls the model's world.
    """
    if tuple(frames.shape) != (num_frames, size_px, size_px, 3):
        raise ShapeError(
            f"frames: {num_frames} of {size_px}x{size_px} pixels expected, {list(frames.shape)} found. Only videos of "
            f"the small {whose} can be measured; sample with their size and number of frames."
        )
    return frames.float()


def check_single_image(image: Tensor, name: str, smallest_px: int = 1) -> Tensor:
    """One RGB picture (1, H, W, 3) in 0..1. Raises ShapeError as check_frames does, and for several pictures."""
    image = check_frames(image, name, smallest_px)
    if image.shape[0] != 1:
        raise ShapeError(
            f"{name}: one picture expected, {image.shape[0]} found. Take one out with 'ImageFromBatch', or split "
            "the batch into a list with 'Rebatch Images' (batch size 1) to animate each."
        )
    return image


def lay_over_white(frames: Tensor, mask: Tensor) -> Tensor:
    """Frames (T, H, W, 3) in 0..1 with what a mask (T or 1, h, w) hides replaced by white: 1 all of it, 0 nothing.

    A mask of another size is scaled to the frames; an empty one of any size hides nothing, as Load Image gives it for
    a picture without transparency.
    Raises ShapeError if the mask has another layout or count, or values that are not numbers.
    """
    if mask.ndim == 2:
        mask = mask[None]
    if mask.ndim != 3 or len(mask) not in (1, len(frames)):
        raise ShapeError(
            f"mask: one mask for each picture expected, height x width; {list(mask.shape)} found for {len(frames)}. "
            "Connect the MASK that belongs to the picture."
        )
    if not torch.isfinite(mask).all():
        raise ShapeError("mask: some values are not numbers (NaN or infinite). Look at the node that makes the mask.")
    mask = mask.float().clamp(0, 1)
    if not mask.any():
        return frames
    if mask.shape[1:] != frames.shape[1:3]:
        mask = F.interpolate(mask[:, None], frames.shape[1:3], mode="bilinear", antialias=True)[:, 0].clamp(0, 1)
    mask = mask[..., None].to(frames.device)
    return frames[..., :3] * (1 - mask) + mask


def fit_frames(frames: Tensor, width_px: int, height_px: int, *, pixel_aspect: float = 1.0) -> Tensor:
    """Frames (T, height_px, width_px, 3): scaled to cover the size with nothing stretched, then cut at the centre.

    frames is (T, H, W, 3) in 0..1 or uint8, its pixels of width to height `pixel_aspect`.
    """
    _, height, width, _ = frames.shape
    scale = max(width_px / (width * pixel_aspect), height_px / height)
    scaled_height = max(height_px, round(height * scale))
    scaled_width = max(width_px, round(width * pixel_aspect * scale))
    channels_first = rearrange(frames, "t h w c -> t c h w")
    if (scaled_height, scaled_width) != (height, width):
        channels_first = F.interpolate(
            channels_first, (scaled_height, scaled_width), mode="bicubic", antialias=True
        ).clamp(0, 255 if frames.dtype == torch.uint8 else 1)
    top, left = (scaled_height - height_px) // 2, (scaled_width - width_px) // 2
    cut = channels_first[..., top : top + height_px, left : left + width_px]
    return rearrange(cut, "t c h w -> t h w c")


def to_model_pixels(frames: Tensor) -> Tensor:
    """Pixels (1, 3, T, H, W) in -1..1, the VAE's layout, from frames (T, H, W, 3) in 0..1."""
    return rearrange(frames, "t h w c -> 1 c t h w") * 2 - 1


def to_frames(pixels: Tensor) -> Tensor:
    """Frames (T, H, W, 3) in 0..1, float32, from pixels (1, 3, T, H, W) in -1..1."""
    return rearrange((pixels[0].float() / 2 + 0.5).clamp(0, 1), "c t h w -> t h w c").contiguous()
