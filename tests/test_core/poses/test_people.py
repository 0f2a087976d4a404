"""Who is meant, and who is who from frame to frame."""

import pytest
import torch

from flexiact_core.errors import SettingError
from flexiact_core.poses.people import choose_person
from flexiact_core.poses.sequence import PoseSequence


def moving(places: list, fps=8.0, present: list | None = None) -> PoseSequence:
    """People of 18 joints, all joints of one at one place; places (T) or (T, P) are its x, y is 5."""
    x = torch.tensor(places, dtype=torch.float32)
    x = x[:, None] if x.ndim == 1 else x
    there = torch.ones_like(x) if present is None else torch.tensor(present).float().view(x.shape)
    points = torch.stack([x, torch.full_like(x, 5)], -1)[:, :, None].expand(-1, -1, 18, -1)
    return PoseSequence(points, there[..., None].expand(-1, -1, 18), (100, 50), fps, "openpose18")


def x_of(poses: PoseSequence) -> list[float]:
    return poses.points[:, 0, 0, 0].tolist()


def people(rows, present=None):
    """Two or more people; x places as rows, heights differ by person."""
    poses = moving(rows, present=present)
    heights = torch.arange(1, 19.0)[None, None] * torch.tensor([1.0, 3.0, 2.0])[: poses.num_people][None, :, None]
    points = poses.points.clone()
    points[..., 1] = heights
    return PoseSequence(points, poses.scores, poses.canvas, poses.fps, poses.layout)


def test_largest_leftmost_all_and_a_number_choose_people():
    poses = people([[10, 80, 40]] * 3)
    assert x_of(choose_person(poses, "largest")) == [80] * 3
    assert x_of(choose_person(poses, "leftmost")) == [10] * 3
    assert x_of(choose_person(poses, 2)) == [40] * 3
    assert choose_person(poses, "all").num_people == 3
    with pytest.raises(SettingError, match="person 3: 3 people found"):
        choose_person(poses, 3)
    with pytest.raises(SettingError, match="largest, leftmost, all"):
        choose_person(poses, "tallest")


def test_a_person_is_followed_when_the_order_of_the_list_changes():
    rows = torch.tensor([[10.0, 80], [82, 12], [14, 84]])
    poses = moving(rows.tolist())
    assert x_of(choose_person(poses, 0)) == [10, 12, 14]
    assert x_of(choose_person(poses, 1)) == [80, 82, 84]


def test_a_person_who_leaves_is_not_replaced_by_one_far_away():
    poses = moving([[10, 90], [0, 88], [12, 86]], present=[[1, 1], [0, 1], [1, 1]])
    followed = choose_person(poses, 0)
    assert followed.present()[:, 0].tolist() == [True, False, True] and x_of(followed)[2] == 12
