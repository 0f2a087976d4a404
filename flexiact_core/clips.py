"""From one reference video to training clips: a window at the base's speed, and random crops of it.

Shape letters: T frames, C channels, H height, W width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import SettingError, ShapeError
from .video import check_frames, fit_frames


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

    frames is (T, H, W, C), in 0..1 or uint8, at `fps` frames per second.
    Raises ShapeError and SettingError if the frames cannot be used, or too few are left.
    """
    window = select_window(resample_frames(frames, fps, form.fps), form, generator)
    if window.dtype == torch.uint8:
        window = window / 255
    window = check_frames(window, "reference")
    return random_crops(window, form.width_px, form.height_px, count, generator, scale_range=scale_range, flip=flip)


def trim_frames(frames: Tensor, fps: float, start: float, duration: float) -> Tensor:
    """The frames from second `start` on, for `duration` seconds; duration 0 is to the end.

    Raises SettingError if nothing is left.
    """
    first = round(start * fps)
    last = first + round(duration * fps) if duration else len(frames)
    trimmed = frames[first:last]
    if not len(trimmed):
        raise SettingError(
            f"start {start:g} s: the reference has {len(frames) / fps:.1f} seconds. Start earlier, or use more of it."
        )
    return trimmed


def resample_frames(frames: Tensor, fps: float, target_fps: float) -> Tensor:
    """Frames (T', H, W, 3) at target_fps: for each moment the frame nearest to it; no frame is invented.

    frames is (T, H, W, 3) at `fps` frames per second; slower videos keep their frames.
    Raises SettingError if fps is not above 0.
    """
    if not fps > 0:
        raise SettingError(f"fps {fps}: the reference video says it has no speed. Set its frame rate.")
    if fps <= target_fps:
        return frames
    count = max(1, round(len(frames) * target_fps / fps))
    moments = (torch.arange(count) * fps / target_fps).round().long().clamp(max=len(frames) - 1)
    return frames[moments]


def select_window(frames: Tensor, form: ClipFormat, generator: torch.Generator) -> Tensor:
    """The longest stretch that has the form's length, at a random place. All crops of a clip share it.

    frames is (T, H, W, C) at the form's speed.
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
        moved = F.grid_sample(fitted.permute(0, 3, 1, 2), grid, "bicubic", "reflection", False)
        if flip and torch.rand((), generator=generator) < 0.5:
            moved = moved.flip(-1)
        crops.append(moved.permute(0, 2, 3, 1).clamp(0, 1))
    return crops
