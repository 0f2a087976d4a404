"""One decoded frame of a video as a player shows it: turned, its pixels square, its colours RGB, over white.

Shape letters: H height, W width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .errors import SettingError
from .video import fit_frames

# A frame of 8192 x 4608 takes 300 MB while it is turned and scaled.
MAX_SOURCE_PIXELS = 8192 * 4608

# Frames for which no size is asked come no larger: a minute of them, at 8 fps, is 3 GB.
MAX_PIXELS = 1920 * 1080

# Numbers of ITU-T H.273, as FFmpeg and PyAV use them.
_HDR_TRANSFERS = {16: "PQ", 18: "HLG"}
_UNSPECIFIED_MATRIX = 2


@dataclass(frozen=True)
class Display:
    """How all frames of a stream are to be shown.

    pixel_aspect is a pixel's width by its height, as stored. matrix is (a, b, c, d): the pixel in column x and row y
    is shown in column a x + c y and row b x + d y.
    """

    pixel_aspect: float = 1.0
    matrix: tuple[int, int, int, int] = (1, 0, 0, 1)


def read_display(stream, frame) -> Display:
    """How a PyAV stream is to be shown, by its first decoded frame."""
    # Asked of one frame only: a frame asked for its side data is held in memory until Python looks for lost cycles.
    data = frame.side_data.get("DISPLAYMATRIX")
    numbers = (1, 0, 0, 0, 1) if data is None else np.frombuffer(data, np.int32)
    matrix = tuple(int(numbers[index]) for index in (0, 1, 3, 4))
    return Display(float(stream.sample_aspect_ratio or 1), matrix)


def show_frame(frame, display: Display, size: tuple[int, int] | None = None) -> Tensor:
    """A decoded PyAV frame as a player shows it, (H, W, 3) uint8.

    It is turned and mirrored, its pixels become square, and what is transparent is laid over white. With a size,
    (width, height) in pixels, it is scaled to cover that and cut at the centre; without one it keeps its own, up to
    MAX_PIXELS.
    Raises SettingError if the frame has more than MAX_SOURCE_PIXELS.
    """
    check_source_size(frame.width, frame.height)
    aspect = display.pixel_aspect
    own_size = _shown_size(frame.width * aspect, frame.height)
    if _is_transposed(display.matrix):
        own_size, aspect = own_size[::-1], 1 / aspect
    pixels = torch.from_numpy(_turn(_to_rgb(frame), display.matrix).copy())
    return fit_frames(pixels[None], *(size or own_size), pixel_aspect=aspect)[0].contiguous()


def check_source_size(width_px: int, height_px: int) -> None:
    """Passes if frames of this size can be read. Raises SettingError otherwise, before memory is taken for them."""
    if width_px * height_px > MAX_SOURCE_PIXELS:
        raise SettingError(
            f"{width_px}x{height_px} pixels: at most {MAX_SOURCE_PIXELS} pixels a frame (8192x4608) are read. Scale "
            "the video down first."
        )


def hdr_kind(frame) -> str:
    """'PQ' or 'HLG' if a decoded PyAV frame is of high dynamic range, else ''."""
    return _HDR_TRANSFERS.get(int(frame.color_trc), "")


def _to_rgb(frame) -> np.ndarray:
    # Pixels (H, W, 3) uint8 as they are stored, neither turned nor scaled.
    layout = frame.format
    see_through = layout.has_palette or any(part.is_alpha for part in layout.components)
    options = {"format": "rgba" if see_through else "rgb24"}
    coloured = len(layout.components) > 1 and not layout.is_rgb and not layout.has_palette
    if coloured and int(frame.colorspace) == _UNSPECIFIED_MATRIX and (frame.width >= 1280 or frame.height > 576):
        # Players take HD without a word on its colours to be BT.709; the decoder's library takes BT.601.
        options["src_colorspace"] = "ITU709"
    pixels = frame.reformat(**options).to_ndarray()
    if not see_through:
        return pixels
    opacity = pixels[..., 3:].astype(np.uint16)
    over_white = pixels[..., :3] * opacity + 255 * (255 - opacity)
    return ((over_white + 127) // 255).astype(np.uint8)


def _is_transposed(matrix: tuple[int, int, int, int]) -> bool:
    a, b, c, d = matrix
    return abs(b) + abs(c) > abs(a) + abs(d)


def _turn(pixels: np.ndarray, matrix: tuple[int, int, int, int]) -> np.ndarray:
    a, b, c, d = matrix
    to_right, to_bottom = a, d
    if _is_transposed(matrix):
        pixels, to_right, to_bottom = pixels.swapaxes(0, 1), c, b
    return pixels[:: -1 if to_bottom < 0 else 1, :: -1 if to_right < 0 else 1]


def _shown_size(width: float, height: float) -> tuple[int, int]:
    scale = min(1.0, math.sqrt(MAX_PIXELS / (width * height)))
    return max(1, round(width * scale)), max(1, round(height * scale))
