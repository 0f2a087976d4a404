"""Poses over time as one frozen value.

Shape letters: T frames, P people, K joints.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import SettingError, ShapeError
from .skeletons import LAYOUTS, WHOLEBODY, map_joints

MIN_CANVAS_PX = 2


@dataclass(frozen=True, eq=False)
class PoseSequence:
    """Where the joints of people are, frame by frame; on the CPU.

    points (T, P, K, 2) are x and y in pixels of the canvas, and may lie outside it. scores (T, P, K) are 0, absent,
    to 1; the place of an absent joint means nothing. canvas is width and height in pixels; fps is frames a second.
    layout names what the K joints are (skeletons.LAYOUTS). A person who is not in a frame has all scores 0 there.
    Raises ShapeError if shapes, values or the canvas cannot be that.
    """

    points: Tensor
    scores: Tensor
    canvas: tuple[int, int]
    fps: float
    layout: str = WHOLEBODY

    def __post_init__(self):
        if self.layout not in LAYOUTS:
            raise ShapeError(f"poses: no layout '{self.layout}' is known. Choose one of {', '.join(LAYOUTS)}.")
        joints = len(LAYOUTS[self.layout])
        if self.points.ndim != 4 or self.points.shape[2:] != (joints, 2):
            raise ShapeError(
                f"poses: frames x people x {joints} joints x 2 expected for {self.layout}, "
                f"{list(self.points.shape)} found."
            )
        if self.scores.shape != self.points.shape[:3]:
            raise ShapeError(f"poses: {list(self.points.shape[:3])} scores expected, {list(self.scores.shape)} found.")
        if not torch.isfinite(self.points).all() or not ((self.scores >= 0) & (self.scores <= 1)).all():
            raise ShapeError("poses: places must be numbers and scores lie in 0..1. Give what is absent the score 0.")
        if min(self.canvas) < MIN_CANVAS_PX:
            raise ShapeError(
                f"poses: a canvas of {self.canvas[0]}x{self.canvas[1]} pixels. It must be the size of the picture that "
                "the joints were found in."
            )
        if not (math.isfinite(self.fps) and self.fps > 0):
            raise ShapeError(f"poses: {self.fps} frames a second; above 0 expected.")

    @property
    def num_frames(self) -> int:
        """T."""
        return self.points.shape[0]

    @property
    def num_people(self) -> int:
        """P, the most people of any frame."""
        return self.points.shape[1]

    def present(self) -> Tensor:
        """Which people are in which frames, (T, P) bool: those with any joint of a score above 0."""
        return (self.scores > 0).any(-1)

    def seen(self, min_score: float = 0.3) -> Tensor:
        """Which joints are seen, (T, P, K) bool: those with a score above min_score (0..1) and above 0."""
        return self.scores > max(min_score, 0.0)


def with_points(poses: PoseSequence, points: Tensor, scores: Tensor | None = None) -> PoseSequence:
    """The same canvas, fps and layout with other points (T, P, K, 2) and, if given, scores (T, P, K)."""
    return replace(poses, points=points, scores=poses.scores if scores is None else scores)


def take_frames(poses: PoseSequence, frames: Tensor) -> PoseSequence:
    """The frames with these indices (any number of them, in any order)."""
    return with_points(poses, poses.points[frames], poses.scores[frames])


def join_frames(first: PoseSequence, second: PoseSequence) -> PoseSequence:
    """The frames of both after one another, on the canvas and at the fps of `second`.

    Raises ShapeError if their layouts differ.
    """
    if first.layout != second.layout:
        raise ShapeError(f"poses: {first.layout} cannot be joined to {second.layout}.")
    people = max(first.num_people, second.num_people)
    points, scores = zip(*(_with_room(poses, people) for poses in (first, second)), strict=True)
    return with_points(second, torch.cat(points), torch.cat(scores))


def scale_to_cover(poses: PoseSequence, width_px: int, height_px: int) -> PoseSequence:
    """The poses on a canvas of another size, as video.fit_frames() puts pictures there: covered, cut at the centre."""
    width, height = poses.canvas
    scale = max(width_px / width, height_px / height)
    shift = torch.tensor([width_px - width * scale, height_px - height * scale]) / 2
    return replace(poses, points=poses.points * scale + shift.to(poses.points), canvas=(width_px, height_px))


def check_poses(poses: PoseSequence, name: str = "pose") -> PoseSequence:
    """`poses`, if a person is in any frame. Raises ShapeError otherwise, and where there is no frame."""
    if not poses.num_frames:
        raise ShapeError(f"{name}: no frame in it. Connect the poses of a video, or of a picture.")
    if not poses.present().any():
        raise ShapeError(
            f"{name}: no person found in {poses.num_frames} frames. Lower the detector's threshold, or give it boxes "
            "around the people."
        )
    return poses


def _with_room(poses: PoseSequence, people: int) -> tuple[Tensor, Tensor]:
    missing = people - poses.num_people
    pad = torch.nn.functional.pad
    return pad(poses.points, (0, 0, 0, 0, 0, missing)), pad(poses.scores, (0, 0, 0, missing))


def to_layout(poses: PoseSequence, layout: str) -> PoseSequence:
    """The poses with the joints of another layout, by name; joints that the old one lacks are absent (score 0).

    A neck that is not given is the middle of the shoulders, its score the lower of theirs.
    Raises SettingError for an unknown layout.
    """
    if layout not in LAYOUTS:
        raise SettingError(f"layout '{layout}': choose one of {', '.join(LAYOUTS)}.")
    if layout == poses.layout:
        return poses
    points, scores = map_joints(poses.points, poses.scores, LAYOUTS[poses.layout], LAYOUTS[layout])
    return replace(poses, points=points, scores=scores, layout=layout)
