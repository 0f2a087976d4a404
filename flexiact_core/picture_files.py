"""Pictures from files, as a viewer shows them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .errors import FileError
from .video import lay_over_white

# As many as Pillow takes for an attack: 16384 x 10922.
MAX_PICTURE_PIXELS = 178_956_970


def read_picture(path: Path) -> Tensor:
    """A picture file (1, H, W, 3) in 0..1: turned as its camera noted, transparent parts over white, the first frame.

    Raises FileError if it is not there, cannot be read, or is too large.
    """
    from PIL import ImageOps

    pixels = _read(path, ImageOps.exif_transpose)
    return lay_over_white(pixels[None, ..., :3], 1 - pixels[None, ..., 3])


def read_stored_picture(path: Path) -> Tensor:
    """A picture file (H, W, 3) in 0..1 as it is stored, not turned, transparent parts over black; the first frame.

    For files of data sets, whose joints and boxes count stored pixels. Raises FileError as read_picture().
    """
    pixels = _read(path, lambda picture: picture)
    return pixels[..., :3] * pixels[..., 3:]


def _read(path: Path, turn: Callable) -> Tensor:
    # (H, W, 4): red, green, blue, opacity.
    from PIL import Image

    path = Path(path)
    if not path.is_file():
        raise FileError(f"{path.name}: no picture file of that name is there. Choose another.")
    try:
        with Image.open(path) as picture:
            _check_size(path, *picture.size)
            return torch.from_numpy(_to_array(turn(picture)))
    except FileError:
        raise
    except Exception as error:  # Pillow's readers raise many kinds for damaged files
        reason = type(error).__name__
        raise FileError(f"{path.name}: this picture cannot be read ({reason}). Save it again.") from error


def _check_size(path: Path, width: int, height: int) -> None:
    if width * height > MAX_PICTURE_PIXELS:
        raise FileError(f"{path.name}: {width}x{height} pixels are too many. Scale the picture down.")


def _to_array(picture) -> np.ndarray:
    # (H, W, 4) float32 in 0..1: red, green, blue, opacity.
    if picture.mode.startswith(("I", "F")):
        # Grey of 16 bits, which Pillow would cut at 255; floats are taken to be in 0..1.
        grey = np.asarray(picture, np.float32) / (1 if picture.mode == "F" else 65535)
        grey = np.clip(np.nan_to_num(grey), 0, 1)
        return np.stack([grey, grey, grey, np.ones_like(grey)], axis=-1)
    return np.asarray(picture.convert("RGBA"), np.float32) / 255
