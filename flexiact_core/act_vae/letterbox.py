"""Poses in a box: picture points in pixels <-> the 26 numbers in -1..1 that the networks know.

Shape letters: T frames, J joints. A box is (left, top, right, bottom) in pixels.
"""

from __future__ import annotations

from torch import Tensor

from ..errors import ShapeError

Box = tuple[float, float, float, float]
BOX_SIDE = 128
# Joints outside the box end on its last pixel, as released.
HIGHEST = 2 * (BOX_SIDE - 1) / BOX_SIDE - 1
MIN_BOX_PX = 8


def person_box(points: Tensor) -> Box:
    """The smallest box around joints (..., J, 2)."""
    flat = points.reshape(-1, 2)
    (left, top), (right, bottom) = flat.amin(0).tolist(), flat.amax(0).tolist()
    return left, top, right, bottom


def grow_box(box: Box, share: float) -> Box:
    """The box with a border of `share` of its longer side on every side."""
    left, top, right, bottom = box
    more = share * max(right - left, bottom - top)
    return left - more, top - more, right + more, bottom + more


def check_box(box: Box) -> None:
    """Nothing, if a person can be in this box of pixels. Raises ShapeError if it is smaller than 8 px or not finite."""
    side = max(box[2] - box[0], box[3] - box[1])
    if not side >= MIN_BOX_PX or not side < float("inf"):
        raise ShapeError(
            f"pose: all joints lie within {side:.3g} px; a person of {MIN_BOX_PX} px or more is needed. Give a pose "
            "whose joints are in pixels of its canvas."
        )


def to_box(points: Tensor, box: Box, side: int = BOX_SIDE) -> Tensor:
    """Joints (..., J, 2) in -1..0.984 from pixels: the box is fitted into a square and centred, as released.

    Joints outside the square are put on its border.
    """
    scale, corner, border = _fit(box, side, points)
    placed = ((points - corner) * scale + border).clamp(0, side - 1)
    return 2 * placed / side - 1


def from_box(points: Tensor, box: Box, side: int = BOX_SIDE) -> Tensor:
    """Joints (..., J, 2) in pixels from -1..1: undoes to_box()."""
    scale, corner, border = _fit(box, side, points)
    return ((points + 1) * side / 2 - border) / scale + corner


def share_outside(points: Tensor, width: float, height: float) -> float:
    """The share 0..1 of joints (..., J, 2) in pixels that lie outside the canvas."""
    limit = points.new_tensor([width, height])
    return float(((points < 0) | (points > limit)).any(-1).float().mean())


def _fit(box: Box, side: int, like: Tensor) -> tuple[float, Tensor, Tensor]:
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    scale = side / max(width, height)
    # As released, the picture's size is rounded to whole pixels before it is centred.
    border = [(side - round(width * scale)) / 2, (side - round(height * scale)) / 2]
    return scale, like.new_tensor([left, top]), like.new_tensor(border)


