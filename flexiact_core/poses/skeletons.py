"""Skeletons: which joints a layout has, in which order, and how one is told from another.

OpenPose's 18 points are the common tongue: every layout maps to them. Left and right are the person's own.
"""

from __future__ import annotations

import torch
from torch import Tensor

OPENPOSE18 = "openpose18"
WHOLEBODY = "wholebody134"
COCO17 = "coco17"
BODY25 = "body25"
PENN13 = "penn13"
COCO133 = "coco133"

_ARM_AND_LEG = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
_OPENPOSE_BODY = (
    "nose",
    "neck",
    *(f"{side}_{joint}" for side in ("right", "left") for joint in _ARM_AND_LEG[:3]),
    *(f"{side}_{joint}" for side in ("right", "left") for joint in _ARM_AND_LEG[3:]),
    "right_eye",
    "left_eye",
    "right_ear",
    "left_ear",
)
_FEET = tuple(f"{side}_{part}" for side in ("left", "right") for part in ("big_toe", "small_toe", "heel"))
_PAIRS = tuple(f"{side}_{joint}" for joint in _ARM_AND_LEG for side in ("left", "right"))

# Slices of the 134 points, in the order of DWPose and of ComfyUI's own pose nodes.
BODY, FOOT, FACE, HAND_RIGHT, HAND_LEFT = slice(0, 18), slice(18, 24), slice(24, 92), slice(92, 113), slice(113, 134)

_FACE_AND_HANDS = (
    *(f"face_{index}" for index in range(68)),
    *(f"{side}_hand_{index}" for side in ("right", "left") for index in range(21)),
)

LAYOUTS: dict[str, tuple[str, ...]] = {
    OPENPOSE18: _OPENPOSE_BODY,
    WHOLEBODY: (*_OPENPOSE_BODY, *_FEET, *_FACE_AND_HANDS),
    # What whole-body detectors give. Its first hand is COCO's left one; ComfyUI's own nodes call it the right one.
    COCO133: ("nose", "left_eye", "right_eye", "left_ear", "right_ear", *_PAIRS, *_FEET, *_FACE_AND_HANDS),
    COCO17: ("nose", "left_eye", "right_eye", "left_ear", "right_ear", *_PAIRS),
    BODY25: (*_OPENPOSE_BODY[:8], "mid_hip", *_OPENPOSE_BODY[8:], *_FEET),
    # Penn Action's head is the middle of the head; it is taken for the nose.
    PENN13: ("nose", *_PAIRS),
}

# Pairs of OpenPose's points that a limb is drawn between, in the order of their colours. A tree from the neck: first
# of a pair is the parent, and every parent stands before its children.
LIMBS = (
    *((1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10)),
    *((1, 11), (11, 12), (12, 13), (1, 0), (0, 14), (14, 16), (0, 15), (15, 17)),
)


def map_joints(points: Tensor, scores: Tensor, old: tuple[str, ...], new: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """Points (..., K, 2) and scores (..., K) of the joints named in `old`, for those named in `new`; as to_layout()."""
    if "neck" not in old and {"left_shoulder", "right_shoulder"} <= set(old):
        shoulders = [old.index("left_shoulder"), old.index("right_shoulder")]
        neck, neck_score = points[..., shoulders, :].mean(-2, keepdim=True), scores[..., shoulders].amin(-1, True)
        points, scores, old = torch.cat([points, neck], -2), torch.cat([scores, neck_score], -1), (*old, "neck")
    # One more joint, absent, is where the missing ones are taken from.
    points = torch.nn.functional.pad(points, (0, 0, 0, 1))
    scores = torch.nn.functional.pad(scores, (0, 1))
    places = {name: index for index, name in enumerate(old)}
    order = [places.get(name, len(old)) for name in new]
    return points[..., order, :], scores[..., order]
