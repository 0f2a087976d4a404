"""What a run is given: picture, mask, poses as joints or as drawn frames."""

import pytest
import torch

from flexiact_core.dynamictrl.frames import plan_frames
from flexiact_core.dynamictrl.inputs import black_out, check_one_of, pose_frames, read_poses
from flexiact_core.errors import SettingError, ShapeError
from flexiact_core.poses.draw import draw_poses

PLAN = plan_frames(5)


def keypoints(x=20):
    person = {"pose_keypoints_2d": [n for j in range(18) for n in (x + j % 5, 10 + 2 * j, 1.0)]}
    return [{"people": [person], "canvas_width": 48, "canvas_height": 64}]


def test_joints_are_drawn_one_for_each_frame_and_told():
    seen = []
    drawn = pose_frames(PLAN, 48, 64, poses=read_poses(keypoints() * 3), on_frame=seen.append)
    assert drawn.shape == (5, 64, 48, 3) and seen == [0, 1, 2, 3, 4]
    assert torch.equal(drawn[:3], draw_poses(read_poses(keypoints() * 3), 48, 64))


def test_a_drawn_video_is_covered_held_and_its_colours_exchanged():
    video = torch.rand(2, 40, 60, 3)
    fitted = pose_frames(PLAN, 48, 64, video=video)
    assert fitted.shape == (5, 64, 48, 3) and torch.equal(fitted[1], fitted[4])
    assert torch.equal(pose_frames(PLAN, 48, 64, video=video, colours="openpose"), fitted.flip(-1))
    same = torch.rand(5, 64, 48, 3)
    assert torch.equal(pose_frames(PLAN, 48, 64, video=same), same)


def test_exactly_one_of_joints_and_video_is_taken():
    check_one_of(True, False)
    for both in (True, False):
        with pytest.raises(SettingError, match="both are" if both else "neither is"):
            check_one_of(both, both)


def test_nobody_in_the_poses_is_refused():
    with pytest.raises(ShapeError, match="no person found in 1 frames"):
        read_poses([{"people": [], "canvas_width": 48, "canvas_height": 64}])


def test_a_mask_blacks_out_where_it_is_white_whatever_its_size():
    picture, mask = torch.rand(1, 40, 60, 3) / 2 + 0.5, torch.zeros(1, 20, 30)
    mask[:, :10] = 1
    hidden = black_out(picture, mask)
    assert not hidden[:, :18].any() and torch.equal(hidden[:, 22:], picture[:, 22:])
    assert torch.equal(black_out(picture, mask[0]), hidden)
    assert torch.equal(black_out(picture, None), picture)
    assert torch.equal(black_out(picture, torch.zeros(1, 64, 64)), picture)


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (torch.ones(1, 8, 8), "all of the picture would be black"),
        (torch.zeros(3, 8, 8), "one mask expected"),
        (torch.full((1, 8, 8), float("inf")), "not numbers"),
    ],
)
def test_masks_that_leave_nothing_or_are_none_are_refused(mask, words):
    with pytest.raises((SettingError, ShapeError), match=words):
        black_out(torch.rand(1, 32, 32, 3), mask)
