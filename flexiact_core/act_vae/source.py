"""The pose that a prediction starts from: one person's 13 joints in one frame, completed where some are missing."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ShapeError
from ..poses.keypoints import read_openpose
from ..poses.people import choose_person
from ..poses.sequence import PoseSequence, check_poses, take_frames, to_layout
from ..poses.skeletons import LAYOUTS, PENN13
from .figures import standing_figure
from .letterbox import check_box, person_box, share_outside

MOST_MISSING = 4
NAMES = LAYOUTS[PENN13]
HEAD = 0
LEFT, RIGHT = tuple(range(1, 13, 2)), tuple(range(2, 13, 2))
# The joint that each hangs on; shoulders and hips hang on none.
PARENTS = {3: 1, 4: 2, 5: 3, 6: 4, 9: 7, 10: 8, 11: 9, 12: 10}
# A standing figure takes so much of the canvas's height, or of its width times two.
STANDING_SHARE = 0.6
MUCH_OUTSIDE = 0.25


@dataclass(frozen=True, eq=False)
class SourcePose:
    """A pose to start from: joints (13, 2) in pixels of the canvas (width, height), and what was done to it."""

    points: Tensor
    canvas: tuple[int, int]
    notes: tuple[str, ...] = ()


def read_source(value, person: str = "largest", canvas: tuple[int, int] = (512, 512)) -> SourcePose:
    """The source pose of a POSE_KEYPOINT value; of None, a standing figure on a canvas (width, height).

    person is as in choose_person(), a number as text. Raises ShapeError and SettingError as source_pose() does.
    """
    if value is None:
        return standing_source(*canvas)
    return source_pose(read_openpose(value, 8.0, "pose"), int(person) if person.isdigit() else person)


def standing_source(width_px: int, height_px: int) -> SourcePose:
    """A person standing in the middle of a canvas, seen from the front."""
    figure = standing_figure()
    size = STANDING_SHARE * min(height_px, 2 * width_px)
    middle = figure.new_tensor([width_px, height_px]) / 2
    points = (figure - (figure.amin(0) + figure.amax(0)) / 2) * size + middle
    return SourcePose(points, (width_px, height_px), ("no pose is connected: a standing figure",))


def source_pose(poses: PoseSequence, person: str | int = "largest") -> SourcePose:
    """The pose of one person in the first frame.

    person is as in choose_person(). Joints that are missing are taken from the other side of the body or from the joint
    they hang on. Raises ShapeError if nobody is there, more than 4 of the 13 joints are missing, or the joints lie in
    one place.
    """
    if not poses.num_frames or not poses.present()[0].any():
        check_poses(poses)
        raise ShapeError("pose: no person in frame 1. Connect a pose whose first frame shows the person.")
    frame = take_frames(poses, torch.tensor([0]))
    number = int(frame.present()[0].sum())
    chosen = to_layout(choose_person(frame, person), PENN13)
    points, notes = complete_pose(chosen.points[0, 0], chosen.scores[0, 0])
    check_box(person_box(points))
    if number > 1:
        notes = (f"{number} people in the pose: the one that is '{person}' was taken", *notes)
    outside = share_outside(points, poses.canvas)
    if outside > MUCH_OUTSIDE:
        notes = (*notes, f"{outside:.0%} of the joints lie outside the canvas")
    return SourcePose(points, poses.canvas, notes)


def complete_pose(points: Tensor, scores: Tensor) -> tuple[Tensor, tuple[str, ...]]:
    """Joints (13, 2) with those of score 0 put in, and a sentence for each.

    A missing limb is that of the other side, mirrored; where that is missing too, the joint it hangs on.
    Raises ShapeError if more than 4 are missing, or both shoulders or both hips.
    """
    known, points, notes = scores > 0, points.clone(), []
    missing = [NAMES[joint] for joint in range(len(NAMES)) if not known[joint]]
    if len(missing) > MOST_MISSING:
        raise ShapeError(
            f"pose: {len(missing)} of 13 joints are missing ({', '.join(missing)}); at most {MOST_MISSING} may be. "
            "Give a picture that shows the whole body."
        )
    for left, right in zip(LEFT, RIGHT):
        for joint, other in ((left, right), (right, left)):
            if known[joint]:
                continue
            points[joint], taken = _from_other(points, known, joint, other)
            notes.append(f"{NAMES[joint]} is missing: {taken}")
        known = known.clone()
        known[left] = known[right] = True
    if not known[HEAD]:
        shoulders, hips = points[1:3].mean(0), points[7:9].mean(0)
        points[HEAD] = shoulders + (shoulders - hips) * 0.5
        notes.append("the head is missing: put over the shoulders")
    return points, tuple(notes)


def _from_other(points: Tensor, known: Tensor, joint: int, other: int) -> tuple[Tensor, str]:
    parent = PARENTS.get(joint)
    if parent is None:
        # A shoulder or hip: as far from the middle of the other pair as the known one.
        pair = [7, 8] if joint < 7 else [1, 2]
        if not known[other] or not known[pair].all():
            raise ShapeError(
                f"pose: {NAMES[joint]} is missing and cannot be taken from the other side. Give a picture that shows "
                "shoulders and hips."
            )
        middle = points[pair].mean(0)
        return torch.stack([2 * middle[0] - points[other][0], points[other][1]]), f"taken from {NAMES[other]}"
    if not known[other]:
        return points[parent], f"put on {NAMES[parent]}"
    reach = points[other] - points[PARENTS[other]]
    return points[parent] + reach * reach.new_tensor([-1.0, 1.0]), f"taken from {NAMES[other]}"
