"""Colours: sRGB as pictures and widgets have it, linear as light adds up."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from ..errors import SettingError


def hex_colour(text: str, name: str = "colour") -> tuple[float, float, float]:
    """Red, green and blue in sRGB 0..1 of "#rrggbb" or "#rgb". Raises SettingError for anything else."""
    digits = str(text).strip().lstrip("#")
    if len(digits) == 3:
        digits = "".join(2 * digit for digit in digits)
    if not re.fullmatch("[0-9a-fA-F]{6}", digits):
        raise SettingError(f"{name} '{str(text)[:20]}' is no colour: give it as #rrggbb, as in #000000 for black.")
    return tuple(int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4))


def to_linear(colours: Tensor) -> Tensor:
    """Linear light 0..1 of sRGB 0..1, IEC 61966-2-1."""
    return torch.where(colours <= 0.04045, colours / 12.92, ((colours.clamp_min(0) + 0.055) / 1.055) ** 2.4)


def to_srgb(colours: Tensor) -> Tensor:
    """sRGB 0..1 of linear light 0..1, IEC 61966-2-1."""
    curved = 1.055 * colours.clamp_min(0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(colours <= 0.0031308, colours * 12.92, curved).clamp(0, 1)
