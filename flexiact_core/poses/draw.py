"""Poses drawn as the pictures that DynamiCtrl was trained on, without OpenCV.

The release draws on a canvas of 2160 pixels on the short side and shrinks it with OpenCV's bilinear resize, which
reads four pixels of the canvas for one of the result. So only those four are computed here, each from the shapes'
equations; the canvas is never made.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..errors import SettingError
from .sequence import PoseSequence, scale_to_cover, to_layout
from .skeletons import FACE, HAND_LEFT, HAND_RIGHT, LIMBS, WHOLEBODY

Colours = Literal["dynamictrl", "openpose"]

# Pixels of the release's canvas on its short side, in which its sizes are given.
CANVAS_SIDE_PX = 2160
STROKE = 8.0
LIMB_RADIUS, JOINT_RADIUS, FACE_RADIUS, FINGER_RADIUS = 4.0, 4.0, 3.0, 1.0
# OpenCV fills a shape and its outline, half a pixel more than the shape.
OUTLINE = 0.5
LIMB_LIGHT = 0.6

# Rows computed at once: what is held besides the result stays small at any size.
BAND_PX = 64

COLOURS = (
    *((255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0), (0, 255, 0)),
    *((0, 255, 85), (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255), (0, 0, 255), (85, 0, 255)),
    *((170, 0, 255), (255, 0, 255), (255, 0, 170), (255, 0, 85)),
)
FINGERS = tuple((0 if joint % 4 == 1 else joint - 1, joint) for joint in range(1, 21))


@dataclass(frozen=True)
class Look:
    """What is drawn of poses, and how.

    stroke is a limb's width in 2160ths of the picture's short side, other sizes follow it; 8 is the release's.
    min_score is the confidence (0..1) from which limbs are drawn, and above which joints are. colours is dynamictrl,
    red and blue exchanged as in the release's training, or openpose.
    """

    body: bool = True
    hands: bool = True
    face: bool = True
    stroke: float = STROKE
    min_score: float = 0.3
    colours: Colours = "dynamictrl"

    def __post_init__(self):
        if self.colours not in ("dynamictrl", "openpose"):
            raise SettingError(f"colours '{self.colours}': choose dynamictrl or openpose.")
        if not 0 < self.stroke < math.inf:
            raise SettingError(f"stroke {self.stroke}: must be above 0.")


@dataclass(frozen=True)
class _Shape:
    """An ellipse or a line on the canvas: centre, half lengths along and across, direction, colour 0..255."""

    x: float
    y: float
    along: float
    across: float
    angle: float
    colour: tuple[int, int, int]
    is_line: bool = False

    def covers(self, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Which of these columns and rows of the canvas lie in it, (rows, columns) bool."""
        dx, dy = columns - self.x, (rows - self.y)[:, None]
        u = np.abs(dx * math.cos(self.angle) + dy * math.sin(self.angle))
        v = dy * math.cos(self.angle) - dx * math.sin(self.angle)
        if self.is_line:
            return np.square(np.maximum(u - self.along, 0)) + np.square(v) <= self.across**2
        return np.square(u / self.along) + np.square(v / self.across) <= 1

    def reach(self) -> tuple[float, float]:
        """How far it reaches from its centre in x and y."""
        cos, sin = abs(math.cos(self.angle)), abs(math.sin(self.angle))
        if self.is_line:
            return self.along * cos + self.across, self.along * sin + self.across
        return math.hypot(self.along * cos, self.across * sin), math.hypot(self.along * sin, self.across * cos)


def draw_poses(
    poses: PoseSequence,
    width_px: int = 0,
    height_px: int = 0,
    look: Look = Look(),
    picture: Tensor | None = None,
    on_frame: Callable[[int], None] | None = None,
) -> Tensor:
    """Frames (T, height_px, width_px, 3) in 0..1 of the drawn poses, on black or over a picture.

    A size of 0 is the canvas's; on another shape the canvas is scaled to cover it and cut at the centre, never
    stretched. picture (1 or T, H, W, 3) in 0..1 is fitted in the same way. on_frame is called after each frame with its
    number and may raise to stop.
    Raises SettingError if the size or the number of pictures does not fit.
    """
    from ..video import fit_frames

    width_px, height_px = width_px or poses.canvas[0], height_px or poses.canvas[1]
    if picture is not None and len(picture) not in (1, poses.num_frames):
        raise SettingError(
            f"picture: 1 or {poses.num_frames} frames expected, one for each pose; {len(picture)} found."
        )
    poses = scale_to_cover(to_layout(poses, WHOLEBODY), width_px, height_px)
    frames = torch.zeros(poses.num_frames, height_px, width_px, 3)
    for index, frame in enumerate(frames):
        drawn = torch.from_numpy(draw_frame(poses, index, look))
        frame.copy_(drawn).div_(255)
        if picture is not None:
            under = fit_frames(picture[index % len(picture)][None], width_px, height_px)[0]
            frame.copy_(torch.where((drawn > 0).any(-1, keepdim=True), frame, under.to(frame)))
        if on_frame is not None:
            on_frame(index)
    return frames


def draw_frame(poses: PoseSequence, frame: int, look: Look = Look()) -> np.ndarray:
    """One frame of poses of 134 joints on its canvas, (H, W, 3) uint8, as the release draws it.

    Source: DynamiCtrl, dwpose/util.py draw_pose(), and OpenCV's resize (11-bit weights).
    """
    width, height = poses.canvas
    columns, rows = _Taps.of(width, poses), _Taps.of(height, poses)
    points = poses.points[frame].double().numpy() / (width, height) * (columns.canvas, rows.canvas)
    scores = poses.scores[frame].float().numpy()
    limbs = list(_limbs(points, scores, look)) if look.body else []
    rest = [shape for kind, part in _PARTS if getattr(look, kind) for shape in part(points, scores, look)]
    drawn = np.zeros((height, width, 3), np.uint8)
    for top in range(0, height, BAND_PX):
        band = rows.part(top, min(height, top + BAND_PX))
        canvas = np.zeros((len(band.places), len(columns.places), 3), np.uint8)
        if _paint(canvas, limbs, columns.places, band.places):
            canvas = (canvas * LIMB_LIGHT).astype(np.uint8)
        elif not rest:
            continue
        _paint(canvas, rest, columns.places, band.places)
        if canvas.any():
            drawn[top : top + BAND_PX] = _shrink(canvas, columns, band)
    return drawn[..., ::-1].copy() if look.colours == "dynamictrl" else drawn


@dataclass(frozen=True, eq=False)
class _Taps:
    """Along one side: which places of the canvas are read, and for each pixel two of them and the second's weight."""

    canvas: int
    places: np.ndarray
    first: np.ndarray
    second: np.ndarray
    weight: np.ndarray  # 0..2048

    @classmethod
    def of(cls, side_px: int, poses: PoseSequence) -> _Taps:
        canvas = int(side_px * (CANVAS_SIDE_PX / min(poses.canvas)))
        place = (np.arange(side_px) + 0.5) * (canvas / side_px) - 0.5
        first = np.floor(place).astype(np.int64)
        weight = np.rint((place - first) * 2048).astype(np.int32)
        ends = np.clip(np.stack([first, first + 1]), 0, canvas - 1)
        places, inverse = np.unique(ends, return_inverse=True)
        inverse = inverse.reshape(ends.shape)
        return cls(canvas, places, inverse[0], inverse[1], weight)

    def part(self, start: int, stop: int) -> _Taps:
        """The same for pixels start to stop alone."""
        first, second = self.first[start:stop], self.second[start:stop]
        lowest = min(first.min(), second.min())
        places = self.places[lowest : max(first.max(), second.max()) + 1]
        return _Taps(self.canvas, places, first - lowest, second - lowest, self.weight[start:stop])


def _paint(canvas: np.ndarray, shapes: list[_Shape], columns: np.ndarray, rows: np.ndarray) -> bool:
    """Whether any shape was painted on the canvas, of which columns and rows are the places."""
    painted = False
    for shape in shapes:
        reach_x, reach_y = shape.reach()
        top, bottom = np.searchsorted(rows, (shape.y - reach_y, shape.y + reach_y + 1))
        left, right = np.searchsorted(columns, (shape.x - reach_x, shape.x + reach_x + 1))
        if top < bottom and left < right:
            inside = shape.covers(columns[left:right], rows[top:bottom])
            canvas[top:bottom, left:right][inside] = shape.colour
            painted = True
    return painted


def _shrink(canvas: np.ndarray, columns: _Taps, rows: _Taps) -> np.ndarray:
    """OpenCV's bilinear resize of uint8: sums of whole numbers, shifted in the same places."""
    weight = columns.weight[:, None]
    wide = canvas.astype(np.int32)
    across = (wide[:, columns.first] * (2048 - weight) + wide[:, columns.second] * weight) >> 4
    weight = rows.weight[:, None, None]
    down = (across[rows.first] * (2048 - weight) >> 16) + (across[rows.second] * weight >> 16)
    return ((down + 2) >> 2).astype(np.uint8)


def _limbs(points: np.ndarray, scores: np.ndarray, look: Look) -> Iterator[_Shape]:
    across = LIMB_RADIUS * look.stroke / STROKE
    for (first, second), colour in zip(LIMBS, COLOURS, strict=False):
        for place, score in zip(points, scores, strict=True):
            if min(score[first], score[second]) < look.min_score or min(score[first], score[second]) <= 0:
                continue
            (x1, y1), (x2, y2) = place[first], place[second]
            # The release's ellipse has whole pixels and whole degrees.
            angle = math.radians(int(math.degrees(math.atan2(y1 - y2, x1 - x2))))
            along = int(math.hypot(x1 - x2, y1 - y2) / 2) + OUTLINE
            shade = _shade(colour, score[first] * score[second])
            yield _Shape(int((x1 + x2) / 2), int((y1 + y2) / 2), along, across + OUTLINE, angle, shade)


def _joints(points: np.ndarray, scores: np.ndarray, look: Look) -> Iterator[_Shape]:
    radius = JOINT_RADIUS * look.stroke / STROKE
    for joint, colour in enumerate(COLOURS):
        for (x, y), score in zip(points[:, joint], scores[:, joint], strict=True):
            if score > max(look.min_score, 0):
                yield _disc(x, y, radius, _shade(colour, score))


def _hands(points: np.ndarray, scores: np.ndarray, look: Look) -> Iterator[_Shape]:
    scale = look.stroke / STROKE
    for hand in (HAND_RIGHT, HAND_LEFT):
        for place, score in zip(points[:, hand].astype(int), scores[:, hand], strict=True):
            inside = (place > 0).all(-1) & (score > 0)
            for number, (first, second) in enumerate(FINGERS):
                if inside[first] and inside[second]:
                    hue = colorsys.hsv_to_rgb(number / len(FINGERS), 1.0, 1.0)
                    light = int(score[first] * score[second] * 255)
                    colour = tuple(round(value * light) for value in hue)
                    yield _line(place[first], place[second], scale, colour)
            for (x, y), is_in, value in zip(place, inside, score, strict=True):
                if is_in:
                    yield _disc(x, y, JOINT_RADIUS * scale, (0, 0, int(value * 255)))


def _face(points: np.ndarray, scores: np.ndarray, look: Look) -> Iterator[_Shape]:
    for place, score in zip(points[:, FACE].astype(int), scores[:, FACE], strict=True):
        for (x, y), value in zip(place, score, strict=True):
            if value > 0 and x > 0 and y > 0:
                yield _disc(x, y, FACE_RADIUS * look.stroke / STROKE, (int(value * 255),) * 3)


_PARTS = (("body", _joints), ("hands", _hands), ("face", _face))


def _disc(x: float, y: float, radius: float, colour: tuple[int, int, int]) -> _Shape:
    return _Shape(int(x), int(y), radius, radius, 0.0, colour)


def _line(start: np.ndarray, end: np.ndarray, scale: float, colour: tuple[int, int, int]) -> _Shape:
    (x1, y1), (x2, y2) = start, end
    along, angle = math.hypot(x2 - x1, y2 - y1) / 2, math.atan2(y2 - y1, x2 - x1)
    return _Shape((x1 + x2) / 2, (y1 + y2) / 2, along, FINGER_RADIUS * scale + OUTLINE / 2, angle, colour, True)


def _shade(colour: tuple[float, ...], light: float) -> tuple[int, int, int]:
    return tuple(int(value * light) for value in colour)
