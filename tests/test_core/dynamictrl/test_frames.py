"""How many frames and poses a run has, and which decoded frames are kept."""

import pytest
import torch

from flexiact_core.dynamictrl.frames import plan_frames
from flexiact_core.errors import SettingError
from flexiact_core.poses.sequence import PoseSequence


def test_the_plan_of_frames_keeps_what_shows_the_poses():
    aligned, release, padded = plan_frames(37), plan_frames(37, "release"), plan_frames(81, "padded")
    assert (aligned.num_poses, aligned.dropped_latents) == (37, 0)
    decoded = torch.arange(40.0)[:, None, None, None]
    assert aligned.keep_frames(decoded).flatten().tolist() == list(range(3, 40))
    assert release.keep_frames(decoded).flatten().tolist() == list(range(37))
    assert (padded.num_poses, padded.padding, padded.dropped_latents) == (85, 4, 1)
    assert padded.keep_latents(torch.zeros(1, 22, 1)).shape[1] == 21


@pytest.mark.parametrize(
    ("num_frames", "rule", "nearest"),
    [
        (81, "aligned", "77 or 85"),
        (49, "aligned", "45 or 53"),
        (33, "release", "29 or 37"),
        (3, "aligned", "5 or 13"),
        (37, "padded", "33 or 41"),
        (0, "padded", "1 or 9"),
    ],
)
def test_other_numbers_of_frames_name_the_nearest(num_frames, rule, nearest):
    with pytest.raises(SettingError, match=f"num_frames {num_frames}: .*Nearest: {nearest}"):
        plan_frames(num_frames, rule)


def test_an_unknown_rule_is_refused():
    with pytest.raises(SettingError, match="aligned, release, padded"):
        plan_frames(37, "first")


def test_poses_are_held_cut_or_put_in_front():
    frames = torch.arange(3.0)[:, None, None, None]
    assert plan_frames(5).fit_pose_frames(frames).flatten().tolist() == [0, 1, 2, 2, 2]
    assert plan_frames(9, "padded").fit_pose_frames(frames).flatten().tolist() == [0] * 5 + [1, 2, 2, 2, 2, 2, 2, 2]
    assert plan_frames(5).fit_pose_frames(torch.arange(9.0)[:, None, None, None]).shape[0] == 5


def test_joints_are_held_and_put_in_front_as_frames_are():
    points = torch.arange(3.0)[:, None, None, None].expand(3, 1, 18, 2)
    poses = PoseSequence(points, torch.ones(3, 1, 18), (64, 64), 16.0, "openpose18")
    fitted = plan_frames(9, "padded").fit_poses(poses)
    assert fitted.points[:, 0, 0, 0].tolist() == [0] * 5 + [1] + [2] * 7
    assert plan_frames(5).fit_poses(poses).points[:, 0, 0, 0].tolist() == [0, 1, 2, 2, 2]
