"""From one reference video to training clips: a window at the base's speed, and random crops of it.

Shape letters: T frames, C channels, H height, W width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from .checks import check_number
from .errors import SettingError, ShapeError
from .video import check_frames, fit_frames

# A side of a reference in pixels: less shows no action.
SMALLEST_PX = 16


@dataclass(frozen=True)
class ClipFormat:
    """The clips that a model learns from: their size, speed and length.

    A clip has frame_multiple * k + frame_offset frames, at least min_frames and at most max_frames.
    """

    width_px: int
    height_px: int
    fps: int
    max_frames: int
    min_frames: int
    frame_multiple: int = 1
    frame_offset: int = 0

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height."""
        return self.width_px, self.height_px


def cut_crops(
    frames: Tensor,
    fps: float,
    form: ClipFormat,
    count: int,
    generator: torch.Generator,
    *,
    scale_range: tuple[float, float] = (0.8, 1.2),
    flip: bool = False,
) -> list[Tensor]:
    """`count` training videos (T, height_px, width_px, 3) in 0..1 of the form asked for, cut from one reference video.

    frames is (T, H, W, C), in 0..1 or uint8, at `fps` frames per second. scale_range is as in random_crops().
    Raises ShapeError and SettingError if the frames or a number cannot be used, or too few frames are left.
    """
    smallest = check_number("smallest_scale", scale_range[0], 0.01)
    largest = check_number("largest_scale", scale_range[1], smallest)
    window = select_window(nearest_frames(len(frames), fps, form.fps), form, generator)
    # One after the other: the window as a whole is held in the form's size only.
    fitted = torch.cat([_fit(frames[at : at + 1], form) for at in window.tolist()])
    return random_crops(
        fitted, form.width_px, form.height_px, count, generator, scale_range=(smallest, largest), flip=flip
    )


def trim_frames(frames: Tensor, fps: float, start: float, duration: float) -> Tensor:
    """The frames from second `start` on, for `duration` seconds; duration 0 is to the end.

    Raises SettingError if nothing is left, or a number cannot be used.
    """
    fps = _check_speed(fps)
    first = round(check_number("start", start, 0) * fps)
    duration = check_number("duration", duration, 0)
    last = first + max(1, round(duration * fps)) if duration else len(frames)
    trimmed = frames[first:last]
    if not len(trimmed):
        raise SettingError(
            f"start {start:g} s: the reference has {len(frames) / fps:.1f} seconds. Start earlier, or use more of it."
        )
    return trimmed


def nearest_frames(num_frames: int, fps: float, target_fps: float) -> Tensor:
    """The index of the frame nearest to each moment, as target_fps counts them, of num_frames at `fps`; int64.

    Halfway between two it is the later one. Frames of slower videos are repeated, so that time stays true.
    Raises SettingError if fps is not above 0.
    """
    fps = _check_speed(fps)
    count = max(min(1, num_frames), round(num_frames * target_fps / fps))
    moments = torch.arange(count, dtype=torch.float64) * fps / target_fps
    return (moments + 0.5 + 1e-6).floor().long().clamp(max=num_frames - 1)


def select_window(frames: Tensor, form: ClipFormat, generator: torch.Generator) -> Tensor:
    """The longest stretch that has the form's length, at a random place. All crops of a clip share it.

    frames is (T, ...) at the form's speed: the frames, or their indices.
    Raises ShapeError if there are fewer than min_frames.
    """
    if len(frames) < form.min_frames:
        raise ShapeError(
            f"reference: {len(frames)} frames at {form.fps} fps found, at least {form.min_frames} are needed "
            f"({form.min_frames / form.fps:.1f} seconds). Use a longer video."
        )
    usable = min(len(frames), form.max_frames)
    length = (usable - form.frame_offset) // form.frame_multiple * form.frame_multiple + form.frame_offset
    start = int(torch.randint(len(frames) - length + 1, (), generator=generator))
    return frames[start : start + length]


def random_crops(
    frames: Tensor,
    width_px: int,
    height_px: int,
    count: int,
    generator: torch.Generator,
    scale_range: tuple[float, float] = (0.8, 1.2),
    max_shift: float = 0.14,
    flip: bool = False,
) -> list[Tensor]:
    """`count` versions (T, height_px, width_px, 3) of a video, each cut at its own scale and place.

    The first is the whole video fitted to the size. A scale under 1 shows more than the frame and a shift moves it,
    by up to max_shift of its sides; what lies outside mirrors the border. So the embedding cannot learn the layout.
    With `flip` half of them are mirrored left to right.
    """
    fitted = fit_frames(frames, width_px, height_px)
    crops = [fitted]
    for _ in range(count - 1):
        scale = scale_range[0] + (scale_range[1] - scale_range[0]) * float(torch.rand((), generator=generator))
        shift = (torch.rand(2, generator=generator) * 2 - 1) * 2 * max_shift
        view = torch.tensor([[1 / scale, 0, shift[0]], [0, 1 / scale, shift[1]]])
        grid = F.affine_grid(view.expand(len(fitted), -1, -1), (len(fitted), 3, height_px, width_px), False)
        moved = F.grid_sample(rearrange(fitted, "t h w c -> t c h w"), grid, "bicubic", "reflection", False)
        if flip and torch.rand((), generator=generator) < 0.5:
            moved = moved.flip(-1)
        crops.append(rearrange(moved, "t c h w -> t h w c").clamp(0, 1))
    return crops


def _fit(frame: Tensor, form: ClipFormat) -> Tensor:
    frame = frame / 255 if frame.dtype == torch.uint8 else frame
    return fit_frames(check_frames(frame, "reference", SMALLEST_PX), form.width_px, form.height_px)


def _check_speed(fps: float) -> float:
    if not (math.isfinite(fps) and fps > 0):
        raise SettingError(f"fps {fps}: the reference video says it has no speed. Set its frame rate.")
    return float(fps)
