"""ComfyUI's POSE_KEYPOINT read and written: OpenPose's JSON, in every dialect that packs give it.

A value is a list of frames, {"people": [...], "canvas_width": px, "canvas_height": px}; each part of a person is a
flat list x, y, confidence, ... It holds no frame rate.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import ShapeError, why
from .sequence import MIN_CANVAS_PX, PoseSequence, to_layout
from .skeletons import BODY, BODY25, COCO17, FACE, FOOT, HAND_LEFT, HAND_RIGHT, LAYOUTS, WHOLEBODY, map_joints

NUM_JOINTS = len(LAYOUTS[WHOLEBODY])
RIGHT_EYE, LEFT_EYE = 14, 15
# People of all frames, as many in each as in the fullest: a gigabyte of places.
MAX_PLACES = 1_000_000

# Key, its place among the 134 points, and the numbers of points that are met.
_PARTS: dict[str, tuple[slice, tuple[int, ...]]] = {
    "pose_keypoints_2d": (BODY, (17, 18, 25)),
    "foot_keypoints_2d": (FOOT, (6,)),
    "face_keypoints_2d": (FACE, (68, 70)),
    "hand_right_keypoints_2d": (HAND_RIGHT, (21,)),
    "hand_left_keypoints_2d": (HAND_LEFT, (21,)),
}


@dataclass(frozen=True)
class _Array:
    """One part of one person in one frame: where it belongs, and its x, y, confidence (N, 3)."""

    frame: int
    person: int
    key: str
    values: Tensor
    canvas: tuple[float, float]


def read_openpose(value: Any, fps: float, name: str = "poses") -> PoseSequence:
    """The poses of a POSE_KEYPOINT value, 134 joints, in pixels of the first frame's canvas.

    Taken are: a list of frames, one frame, lists in lists, or any of them as JSON text; pixels, or a share 0..1 of the
    canvas (told for each part by itself); parts that are null or left out; bodies of 18 points, BODY_25 and COCO-17,
    faces of 68 or 70. Places that are no number or -1 are absent, confidences are cut to 0..1.
    Raises ShapeError naming the frame and key of what cannot be read.
    """
    try:
        frames = _list_frames(value, name)
    except RecursionError as error:
        raise ShapeError(f"{name}: lists in lists without end. Connect a POSE_KEYPOINT output.") from error
    if not frames:
        raise ShapeError(f"{name}: no frame in it. Connect the POSE_KEYPOINT output of a pose detector.")
    canvases = [_canvas_of(frame, f"{name}, frame {index}") for index, frame in enumerate(frames)]
    people = [_people_of(frame, f"{name}, frame {index}") for index, frame in enumerate(frames)]
    most = max(map(len, people))
    if most * len(frames) > MAX_PLACES:
        raise ShapeError(f"{name}: {most} people in {len(frames)} frames are too many. Use a shorter video.")
    arrays = [
        _Array(index, number, key, values, canvases[index])
        for index, group in enumerate(people)
        for number, person in enumerate(group)
        for key in _PARTS
        if (values := _read_part(person, key, f"{name}, frame {index}, person {number}")) is not None
    ]
    width, height = canvases[0]
    points = torch.zeros(len(frames), most, NUM_JOINTS, 2)
    scores = torch.zeros(points.shape[:3])
    normalised = _mostly_normalised(arrays)
    for array in arrays:
        place = _to_canvas(array, (width, height), array.key in normalised)
        _put(points[array.frame, array.person], scores[array.frame, array.person], array, place)
    return PoseSequence(points, scores, (round(width), round(height)), fps)


def write_openpose(poses: PoseSequence, keep_scores: bool = False) -> list[dict[str, Any]]:
    """The poses as a POSE_KEYPOINT value that every reader met takes: pixels, all parts at full length.

    Joints that are there have confidence 1, others 0 at place 0, 0; keep_scores writes the scores instead, which one
    common pack reads as absent where they are below 1. People who are not in a frame are left out of it.
    """
    poses = to_layout(poses, WHOLEBODY)
    there = poses.scores > 0
    places = torch.where(there.unsqueeze(-1), poses.points, 0.0)
    confidence = poses.scores if keep_scores else there.to(poses.scores)
    rows = torch.cat([places, confidence.unsqueeze(-1)], -1).float()
    width, height = poses.canvas
    return [
        {
            "people": [_write_person(person) for person, is_in in zip(frame, inside, strict=True) if is_in],
            "canvas_width": int(width),
            "canvas_height": int(height),
        }
        for frame, inside in zip(rows, poses.present(), strict=True)
    ]


def _write_person(rows: Tensor) -> dict[str, list[float]]:
    parts = {key: rows[place] for key, (place, _) in _PARTS.items()}
    # The eyes are repeated after the face's 68 points, as OpenPose does.
    parts["face_keypoints_2d"] = torch.cat([rows[FACE], rows[[RIGHT_EYE, LEFT_EYE]]])
    return {key: part.flatten().tolist() for key, part in parts.items()}


def _list_frames(value: Any, name: str) -> list[Mapping[str, Any]]:
    if isinstance(value, str | bytes):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise ShapeError(f"{name}: text that is no JSON ({why(error)}). Connect a POSE_KEYPOINT output.") from error
    if isinstance(value, Mapping):
        return [value]
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [frame for part in value for frame in _list_frames(part, name)]
    raise ShapeError(
        f"{name}: a list of frames with people expected, {type(value).__name__} found. Connect a POSE_KEYPOINT output."
    )


def _canvas_of(frame: Mapping[str, Any], where: str) -> tuple[float, float]:
    try:
        width, height = float(frame["canvas_width"]), float(frame["canvas_height"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ShapeError(f"{where}: canvas_width and canvas_height are needed, in pixels.") from error
    if not (MIN_CANVAS_PX <= width < float("inf") and MIN_CANVAS_PX <= height < float("inf")):
        raise ShapeError(
            f"{where}: a canvas of {width:g}x{height:g}. It must be the size in pixels of the picture that the joints "
            "were found in."
        )
    return width, height


def _people_of(frame: Mapping[str, Any], where: str) -> Sequence[Mapping[str, Any]]:
    if frame.get("people") is None and frame.get("animals"):
        raise ShapeError(f"{where}: animals, but no people. Use a detector of people.")
    people = frame.get("people") or []
    if not isinstance(people, Sequence) or not all(isinstance(person, Mapping) for person in people):
        raise ShapeError(f"{where}: 'people' must be a list of people with their keypoints.")
    return people


def _read_part(person: Mapping[str, Any], key: str, where: str) -> Tensor | None:
    flat = person.get(key)
    if flat is None:
        return None
    if isinstance(flat, str | bytes | Mapping) or not hasattr(flat, "__len__"):
        raise ShapeError(f"{where}, {key}: a list of numbers expected, {type(flat).__name__} found.")
    if len(flat) == 0:
        return None
    if len(flat) % 3:
        raise ShapeError(f"{where}, {key}: {len(flat)} numbers; three for each point (x, y, confidence) expected.")
    possible = _PARTS[key][1]
    if len(flat) // 3 not in possible:
        raise ShapeError(
            f"{where}, {key}: {len(flat) // 3} points found; {' or '.join(map(str, possible))} are understood."
        )
    try:
        values = torch.tensor([float("nan") if number is None else float(number) for number in flat]).view(-1, 3)
    except (TypeError, ValueError, OverflowError) as error:
        raise ShapeError(f"{where}, {key}: not all are numbers ({why(error)}).") from error
    absent = ~torch.isfinite(values).all(-1) | (values[:, :2] == -1).any(-1)
    values = torch.where(absent.unsqueeze(-1), 0.0, values)
    values[:, 2].clamp_(0, 1)
    return values


def _mostly_normalised(arrays: Sequence[_Array]) -> set[str]:
    """Keys of which most seen points of the sequence lie in 0..1: their arrays may then leave the canvas a little."""
    keys = set()
    for key in _PARTS:
        seen = [array.values[array.values[:, 2] > 0, :2] for array in arrays if array.key == key]
        if seen and (seen := torch.cat(seen)).numel() and _in_unit(seen).float().mean() > 0.5:
            keys.add(key)
    return keys


def _in_unit(places: Tensor) -> Tensor:
    return ((places >= 0) & (places <= 1)).all(-1)


def _to_canvas(array: _Array, canvas: tuple[float, float], mostly_normalised: bool) -> Tensor:
    places, seen = array.values[:, :2], array.values[:, 2] > 0
    nearly = mostly_normalised and ((places >= -1) & (places <= 2)).all()
    if seen.any() and (_in_unit(places[seen]).all() or nearly):
        return places * places.new_tensor(canvas)
    if array.canvas == canvas:
        return places
    # A frame of another size: scaled as a whole, so that nobody is stretched, and centred.
    own, wanted = places.new_tensor(array.canvas), places.new_tensor(canvas)
    scale = (wanted / own).min()
    return places * scale + (wanted - own * scale) / 2


def _put(points: Tensor, scores: Tensor, array: _Array, places: Tensor) -> None:
    target, confidence = _PARTS[array.key][0], array.values[:, 2]
    number = len(confidence)
    if array.key == "pose_keypoints_2d" and number != 18:
        old = LAYOUTS[{17: COCO17, 25: BODY25}[number]]
        # Of BODY_25 the feet are known too; a part of their own, read later, replaces them.
        mapped, mapped_scores = map_joints(places, confidence, old, LAYOUTS[WHOLEBODY])
        points[: FOOT.stop], scores[: FOOT.stop] = mapped[: FOOT.stop], mapped_scores[: FOOT.stop]
        return
    size = target.stop - target.start
    points[target], scores[target] = places[:size], confidence[:size]
