"""Rate, length, gaps and jitter of poses; skeletons; who is who."""

import pytest
import torch

from flexiact_core.errors import SettingError
from flexiact_core.poses.people import choose_person
from flexiact_core.poses.sequence import PoseSequence, join_frames, scale_to_cover, to_layout
from flexiact_core.poses.skeletons import LAYOUTS, LIMBS, PENN13, WHOLEBODY
from flexiact_core.poses.timing import (
    count_missing,
    fill_missing,
    fit_length,
    resample_poses,
    smooth_poses,
    spread_poses,
)


def moving(places: list, fps=8.0, present: list | None = None) -> PoseSequence:
    """People of 18 joints, all joints of one at one place; places (T) or (T, P) are its x, y is 5."""
    x = torch.tensor(places, dtype=torch.float32)
    x = x[:, None] if x.ndim == 1 else x
    there = torch.ones_like(x) if present is None else torch.tensor(present).float().view(x.shape)
    points = torch.stack([x, torch.full_like(x, 5)], -1)[:, :, None].expand(-1, -1, 18, -1)
    return PoseSequence(points, there[..., None].expand(-1, -1, 18), (100, 50), fps, "openpose18")


def x_of(poses: PoseSequence) -> list[float]:
    return poses.points[:, 0, 0, 0].tolist()


def test_between_two_frames_joints_go_in_a_straight_line():
    assert x_of(resample_poses(moving([0, 10, 20]), 16)) == [0, 5, 10, 15, 20, 20]
    assert x_of(resample_poses(moving([0, 1, 2, 3, 4, 5], fps=30), 15)) == [0, 2, 4]
    assert resample_poses(moving([0, 10]), 16).fps == 16


@pytest.mark.parametrize(("number", "fps", "wanted", "expected"), [(30, 30, 16, 16), (31, 30, 16, 17), (1, 24, 16, 1)])
def test_a_resampled_clip_has_as_many_poses_as_the_video_has_frames(number, fps, wanted, expected):
    assert resample_poses(moving([0.0] * number, fps=fps), wanted).num_frames == expected


def test_five_poses_spread_over_thirteen_frames_keep_their_seconds():
    spread = spread_poses(moving([0, 4, 8, 12, 16], fps=2), 13)
    torch.testing.assert_close(torch.tensor(x_of(spread)), torch.linspace(0, 16, 13))
    assert spread.fps == pytest.approx(2 * 12 / 4)


def test_an_absent_joint_comes_from_the_nearer_frame():
    poses = moving([0, 10], present=[1, 0])
    resampled = resample_poses(poses, 32)
    assert resampled.present()[:, 0].tolist() == [True, True, False, False, False, False, False, False]
    assert x_of(resampled)[:2] == [0, 0]


def test_too_few_poses_are_held_or_go_back_and_too_many_are_cut():
    poses = moving([0, 1, 2])
    assert x_of(fit_length(poses, 6)) == [0, 1, 2, 2, 2, 2]
    assert x_of(fit_length(poses, 6, "ping-pong")) == [0, 1, 2, 1, 0, 1]
    assert x_of(fit_length(poses, 2)) == [0, 1]
    for padding in ("last", "ping-pong"):
        assert x_of(fit_length(moving([7]), 3, padding)) == [7, 7, 7]
    with pytest.raises(SettingError, match="last or ping-pong"):
        fit_length(poses, 3, "loop")
    with pytest.raises(SettingError, match="at least 1"):
        fit_length(poses, 0)


def test_frames_without_a_person_are_held_or_bridged_or_left():
    poses = moving([0, 3, 0, 0, 9, 0], present=[0, 1, 0, 0, 1, 0])
    assert count_missing(poses) == 4
    assert x_of(fill_missing(poses, "hold")) == [3, 3, 3, 3, 9, 9]
    assert x_of(fill_missing(poses, "interpolate")) == [3, 3, 5, 7, 9, 9]
    assert fill_missing(poses, "hold").present().all()
    assert fill_missing(poses, "empty") is poses
    with pytest.raises(SettingError, match="hold, interpolate or empty"):
        fill_missing(poses, "guess")


def test_smoothing_keeps_a_still_joint_weighs_what_is_seen_and_leaves_absent_ones():
    still = smooth_poses(moving([4, 4, 4, 90], present=[1, 1, 1, 0]), 2)
    torch.testing.assert_close(torch.tensor(x_of(still)[:3]), torch.full((3,), 4.0))
    assert not still.present()[3].any()
    e = 2.718281828459045**-0.5
    smoothed = x_of(smooth_poses(moving([0, 10]), 1))
    assert smoothed == pytest.approx([10 * e / (1 + e), 10 / (1 + e)])
    jitter = moving([0, 2] * 8)
    assert max(x_of(smooth_poses(jitter, 2))) < 1.2
    assert smooth_poses(jitter, 0) is jitter


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


def test_penn_joints_become_openpose_ones_and_back():
    points = torch.arange(13.0)[None, None, :, None].expand(1, 1, 13, 2)
    poses = PoseSequence(points, torch.ones(1, 1, 13), (128, 128), 4.0, PENN13)
    mapped = to_layout(poses, "openpose18")
    places = mapped.points[0, 0, :, 0].tolist()
    # nose; left/right shoulder, elbow, wrist to 5/2, 6/3, 7/4; hip, knee, ankle to 11/8, 12/9, 13/10; neck between.
    assert [places[i] for i in (0, 5, 2, 6, 3, 7, 4, 11, 8, 12, 9, 13, 10)] == list(range(13))
    assert places[1] == 1.5
    assert (mapped.scores[0, 0] > 0).tolist() == [True] * 14 + [False] * 4
    assert torch.equal(to_layout(mapped, PENN13).points, poses.points)
    assert torch.equal(to_layout(to_layout(mapped, WHOLEBODY), "openpose18").points, mapped.points)


def test_layouts_have_their_number_of_joints_and_limbs_are_a_tree():
    assert {name: len(joints) for name, joints in LAYOUTS.items()} == {
        "openpose18": 18,
        "wholebody134": 134,
        "coco17": 17,
        "body25": 25,
        "penn13": 13,
        "coco133": 133,
    }
    assert all(len(set(joints)) == len(joints) for joints in LAYOUTS.values())
    known = {1}
    for parent, child in LIMBS:
        assert parent in known and child not in known
        known.add(child)
    assert known == set(range(18))


def test_a_canvas_of_another_shape_is_covered_and_cut_at_the_centre():
    """As video.fit_frames() does with the picture."""
    covered = scale_to_cover(moving([50]), 50, 50)
    assert covered.canvas == (50, 50) and covered.points[0, 0, 0].tolist() == [25, 5]
    covered = scale_to_cover(moving([50]), 200, 200)
    assert covered.points[0, 0, 0].tolist() == [100, 20]


def test_frames_are_joined_with_room_for_all_people():
    joined = join_frames(moving([1]), people([[2, 3, 4]]))
    assert joined.points.shape[:2] == (2, 3) and joined.present().tolist() == [[True, False, False], [True] * 3]
