"""Rate, length, gaps and jitter of poses; skeletons; who is who."""

import pytest
import torch

from flexiact_core.errors import SettingError
from flexiact_core.poses.sequence import PoseSequence
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
