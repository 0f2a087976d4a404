"""The pose to start from, in any of the forms that packs give it, whole or with joints missing."""

from __future__ import annotations

import json

import pytest
import torch
from torch.testing import assert_close

from flexiact_core.act_vae.source import complete_pose, read_source, standing_source
from flexiact_core.errors import SettingError, ShapeError
from flexiact_core.poses.keypoints import write_openpose
from flexiact_core.poses.sequence import PoseSequence
from flexiact_core.poses.skeletons import LAYOUTS, PENN13

NAMES = LAYOUTS[PENN13]


def keypoints(points: torch.Tensor, scores: torch.Tensor | None = None, canvas=(512, 512)) -> list[dict]:
    """A POSE_KEYPOINT value of one frame with people (P, 13, 2)."""
    points = points.view(1, -1, 13, 2)
    scores = torch.ones(points.shape[:3]) if scores is None else scores.view(points.shape[:3])
    return write_openpose(PoseSequence(points, scores, canvas, 8.0, PENN13))


@pytest.fixture
def standing() -> torch.Tensor:
    return standing_source(512, 512).points


def test_a_pose_comes_back_as_it_was(standing):
    source = read_source(keypoints(standing))
    assert_close(source.points, standing, atol=1e-3, rtol=0)
    assert source.canvas == (512, 512) and source.notes == ()


def test_without_a_pose_a_figure_stands_in_the_middle():
    source = read_source(None, canvas=(600, 400))
    assert source.canvas == (600, 400) and "standing figure" in source.notes[0]
    low, high = source.points.amin(0), source.points.amax(0)
    assert_close((low + high) / 2, torch.tensor([300.0, 200.0]))
    assert_close(high[1] - low[1], torch.tensor(240.0))
    # Seen from the front: the person's left is on the right, the head above, the ankles below.
    assert source.points[NAMES.index("left_wrist"), 0] > source.points[NAMES.index("right_wrist"), 0]
    assert source.points[:, 1].argmin() == NAMES.index("nose")
    assert source.points[:, 1].argmax() in (NAMES.index("left_ankle"), NAMES.index("right_ankle"))


def test_json_text_one_frame_and_missing_parts_are_read(standing):
    value = keypoints(standing)
    person = {"pose_keypoints_2d": value[0]["people"][0]["pose_keypoints_2d"], "hand_left_keypoints_2d": None}
    frame = {"people": [person], "canvas_width": 512, "canvas_height": 512}
    for form in (json.dumps(value), value[0], [frame]):
        assert_close(read_source(form).points, standing, atol=1e-3, rtol=0)


def test_a_pose_in_shares_of_the_canvas_is_the_same_pose(standing):
    value = keypoints(standing)
    body = value[0]["people"][0]["pose_keypoints_2d"]
    shares = [number if place % 3 == 2 else number / 512 for place, number in enumerate(body)]
    frame = {"people": [{"pose_keypoints_2d": shares}], "canvas_width": 512, "canvas_height": 512}
    assert_close(read_source([frame]).points, standing, atol=1e-2, rtol=0)


def test_of_several_people_the_largest_is_taken_and_that_is_said(standing):
    small = standing * 0.5
    value = keypoints(torch.stack([small, standing]))
    source = read_source(value)
    assert_close(source.points, standing, atol=1e-3, rtol=0)
    assert "2 people in the pose" in source.notes[0]
    assert_close(read_source(value, "0").points, small, atol=1e-3, rtol=0)
    with pytest.raises(SettingError, match="person 5: 2 people"):
        read_source(value, "5")


def test_nobody_in_the_first_frame_is_refused(standing):
    nobody = [{"people": [], "canvas_width": 512, "canvas_height": 512}]
    with pytest.raises(ShapeError, match="no person"):
        read_source(nobody)
    with pytest.raises(ShapeError, match="no person in frame 1"):
        read_source(nobody + keypoints(standing))


def test_a_missing_wrist_is_the_other_one_in_a_mirror(standing):
    scores = torch.ones(13)
    scores[NAMES.index("left_wrist")] = 0
    broken = standing.clone()
    broken[NAMES.index("left_wrist")] = torch.tensor([999.0, 999.0])
    points, notes = complete_pose(broken, scores)
    # The standing figure is the same on both sides.
    assert_close(points, standing, atol=1e-3, rtol=0)
    assert notes == ("left_wrist is missing: taken from right_wrist",)


def test_a_limb_that_is_missing_on_both_sides_lies_on_its_parent(standing):
    scores = torch.ones(13)
    both = [NAMES.index("left_ankle"), NAMES.index("right_ankle")]
    scores[both] = 0
    points, notes = complete_pose(standing, scores)
    assert_close(points[both], standing[[NAMES.index("left_knee"), NAMES.index("right_knee")]])
    assert [note.split(": ")[1] for note in notes] == ["put on left_knee", "put on right_knee"]


def test_a_missing_shoulder_and_head_are_put_where_they_belong(standing):
    scores = torch.ones(13)
    scores[[0, 1]] = 0
    points, notes = complete_pose(standing, scores)
    assert_close(points[1], standing[1], atol=1e-3, rtol=0)
    assert points[0, 1] < points[1, 1] and len(notes) == 2


@pytest.mark.parametrize("missing", [["nose", "left_wrist", "left_elbow", "left_knee", "left_ankle"], list(NAMES[1:])])
def test_more_than_four_missing_joints_are_refused_by_name(standing, missing):
    scores = torch.tensor([float(name not in missing) for name in NAMES])
    with pytest.raises(ShapeError, match=rf"{len(missing)} of 13 joints are missing \({missing[0]}"):
        read_source(keypoints(standing, scores))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), None])
def test_a_place_that_is_no_number_counts_as_missing(standing, number):
    value = keypoints(standing)
    value[0]["people"][0]["pose_keypoints_2d"][3 * 4] = number
    notes = read_source(value).notes
    assert notes == ("right_wrist is missing: taken from left_wrist",)


def test_all_joints_in_one_place_are_refused():
    with pytest.raises(ShapeError, match="8 px or more"):
        read_source(keypoints(torch.full((13, 2), 100.0)))


def test_joints_outside_the_canvas_are_said_from_a_quarter_on(standing):
    away = standing + torch.tensor([0.0, 250.0])
    outside = float((away[:, 1] > 512).float().mean())
    assert outside > 0.25
    assert f"{outside:.0%} of the joints lie outside" in read_source(keypoints(away)).notes[0]
    assert read_source(keypoints(standing + torch.tensor([0.0, 110.0]))).notes == ()
