"""Poses in a box: picture points in pixels <-> the 26 numbers in -1..1 that the networks know.

Shape letters: J joints. A box is (..., 4): left, top, right, bottom in pixels; its leading sides are those of the
poses, or 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import ShapeError

BOX_SIDE = 128
# Joints outside the box end on its last pixel, as released.
HIGHEST = 2 * (BOX_SIDE - 1) / BOX_SIDE - 1
MIN_BOX_PX = 8


def person_box(points: Tensor) -> Tensor:
    """The smallest box (..., 4) around joints (..., J, 2)."""
    return torch.cat([points.amin(-2), points.amax(-2)], dim=-1)


def grow_box(box: Tensor, share: Tensor | float) -> Tensor:
    """The box (..., 4) with a border of `share` (...) of its longer side on every side."""
    more = (box[..., 2:] - box[..., :2]).amax(-1) * share
    return box + more[..., None] * box.new_tensor([-1.0, -1.0, 1.0, 1.0])


def check_box(box: Tensor) -> None:
    """Passes if a person can be in this box (4,). Raises ShapeError if it is smaller than 8 px or not finite."""
    side = float((box[2:] - box[:2]).max())
    if not MIN_BOX_PX <= side < float("inf"):
        raise ShapeError(
            f"pose: all joints lie within {side:.3g} px; a person of {MIN_BOX_PX} px or more is needed. Give a pose "
            "whose joints are in pixels of its canvas."
        )


def to_box(points: Tensor, box: Tensor, side: int = BOX_SIDE) -> Tensor:
    """Joints (..., J, 2) in -1..0.984 from pixels: the box is fitted into a square and centred, as released.

    Joints outside the square are put on its border.
    """
    scale, corner, border = _fit(box, side)
    placed = ((points - corner) * scale + border).clamp(0, side - 1)
    return 2 * placed / side - 1


def from_box(points: Tensor, box: Tensor, side: int = BOX_SIDE) -> Tensor:
    """Joints (..., J, 2) in pixels from -1..1: undoes to_box()."""
    scale, corner, border = _fit(box, side)
    return ((points + 1) * side / 2 - border) / scale + corner


def share_outside(points: Tensor, canvas: tuple[float, float]) -> float:
    """The share 0..1 of joints (..., J, 2) in pixels that lie outside the canvas (width, height)."""
    return float(((points < 0) | (points > points.new_tensor(canvas))).any(-1).float().mean())


def _fit(box: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor]:
    size = box[..., 2:] - box[..., :2]
    scale = side / size.amax(-1, keepdim=True)
    # As released, the picture's size is rounded to whole pixels before it is centred.
    border = (side - (size * scale).round()) / 2
    return scale[..., None, :], box[..., None, :2], border[..., None, :]
