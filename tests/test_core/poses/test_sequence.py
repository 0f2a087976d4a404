"""Poses as one frozen value."""

import math

import pytest
import torch

from flexiact_core.errors import ShapeError
from flexiact_core.poses.sequence import PoseSequence, check_poses, join_frames, scale_to_cover


def moving(places: list, fps=8.0, present: list | None = None) -> PoseSequence:
    """People of 18 joints, all joints of one at one place; places (T) or (T, P) are its x, y is 5."""
    x = torch.tensor(places, dtype=torch.float32)
    x = x[:, None] if x.ndim == 1 else x
    there = torch.ones_like(x) if present is None else torch.tensor(present).float().view(x.shape)
    points = torch.stack([x, torch.full_like(x, 5)], -1)[:, :, None].expand(-1, -1, 18, -1)
    return PoseSequence(points, there[..., None].expand(-1, -1, 18), (100, 50), fps, "openpose18")


def test_a_canvas_of_another_shape_is_covered_and_cut_at_the_centre():
    """As video.fit_frames() does with the picture."""
    covered = scale_to_cover(moving([50]), 50, 50)
    assert covered.canvas == (50, 50) and covered.points[0, 0, 0].tolist() == [25, 5]
    covered = scale_to_cover(moving([50]), 200, 200)
    assert covered.points[0, 0, 0].tolist() == [100, 20]


def test_frames_are_joined_with_room_for_all_people():
    joined = join_frames(moving([1]), moving([[2, 3, 4]]))
    assert joined.points.shape[:2] == (2, 3) and joined.present().tolist() == [[True, False, False], [True] * 3]


def test_nobody_anywhere_is_refused_with_the_number_of_frames():
    with pytest.raises(ShapeError, match="no person found in 3 frames"):
        check_poses(moving([0, 0, 0], present=[0, 0, 0]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"layout": "x"}, "no layout 'x'"),
        ({"points": torch.zeros(2, 1, 17, 2)}, "134 joints"),
        ({"scores": torch.zeros(2, 134)}, "scores expected"),
        ({"scores": torch.full((2, 1, 134), 1.5)}, "0..1"),
        ({"points": torch.full((2, 1, 134, 2), math.nan)}, "must be numbers"),
        ({"canvas": (1, 5)}, "canvas of 1x5"),
        ({"fps": 0.0}, "frames a second"),
    ],
)
def test_a_sequence_that_cannot_be_is_refused(change, words):
    good = {"points": torch.zeros(2, 1, 134, 2), "scores": torch.zeros(2, 1, 134), "canvas": (8, 8), "fps": 8.0}
    PoseSequence(**good)
    with pytest.raises(ShapeError, match=words):
        PoseSequence(**good | change)
