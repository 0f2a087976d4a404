"""Align Pose and Draw Pose, without a server."""

import json

import pytest
import torch

nodes = pytest.importorskip("flexiact_pack.nodes", reason="There is no ComfyUI to import the nodes in: `make setup`.")

ALIGN = {
    "driving_fps": 16.0, "width": 64, "height": 96, "method": "release", "person": "largest", "reference_first": True,
    "missing": "hold", "smooth": 0.0, "fps": 16.0, "num_frames": 0, "keep_scores": False,
}  # fmt: skip
DRAW = {
    "width": 0, "height": 0, "body": True, "hands": True, "face": True, "stroke": 100.0, "min_score": 0.3,
    "colours": "dynamictrl",
}  # fmt: skip


def frames(count: int, scale: float = 1.0, score: float = 0.9) -> list[dict]:
    """A person of 18 joints who walks to the right, as ComfyUI's own node gives it."""
    person = [
        {"pose_keypoints_2d": [n for j in range(18) for n in (scale * (10 + j % 5 + i), scale * (10 + 2 * j), score)]}
        for i in range(count)
    ]
    return [{"people": [each], "canvas_width": 64, "canvas_height": 64} for each in person]


def align(driving, reference=None, **changes):
    return nodes.AlignPose.execute(driving=driving, reference=reference, **ALIGN | changes).args


def test_poses_come_out_whole_with_their_rate(running_node):
    poses, fps = align(frames(3), frames(1, 0.5))
    assert fps == 16 and len(poses) == 4
    for frame in poses:
        assert (frame["canvas_width"], frame["canvas_height"]) == (64, 96)
        assert {key: len(part) for key, part in frame["people"][0].items()} == {
            "pose_keypoints_2d": 54, "foot_keypoints_2d": 18, "face_keypoints_2d": 210,
            "hand_right_keypoints_2d": 63, "hand_left_keypoints_2d": 63,
        }  # fmt: skip
        assert set(frame["people"][0]["pose_keypoints_2d"][2::3]) == {1.0}
    json.dumps(poses)


def test_choices_reach_the_core(running_node):
    driving = frames(8)
    assert len(align(driving, fps=8.0)[0]) == 4
    assert len(align(driving, driving_fps=32.0)[0]) == 4
    assert len(align(driving, num_frames=13)[0]) == 13
    assert len(align(driving, frames(1), reference_first=False)[0]) == 8
    assert align(driving, keep_scores=True)[0][0]["people"][0]["pose_keypoints_2d"][2] == pytest.approx(0.9)
    assert len(align(driving, person="0")[0][0]["people"]) == 1


def test_what_was_done_is_said(running_node, said):
    align(frames(2))
    assert said == ["no person in the picture: scaled to cover, not aligned"]
    gap = frames(2)
    gap[1]["people"] = []
    align(gap, method="none")
    assert said[1] == "nobody in 1 of 2 frames (hold)"


def test_what_cannot_be_aligned_is_a_sentence(running_node):
    from flexiact_core.errors import FlexiActError

    nobody = [{"people": [], "canvas_width": 64, "canvas_height": 64}]
    for driving, words in (
        ([], "driving: no frame in it"),
        (nobody, "no person found in 1 frames"),
        (frames(1, score=0.0), "no person found"),
        ([{"animals": [[1]], "canvas_width": 9, "canvas_height": 9}], "animals, but no people"),
        (frames(1) + [{"people": [{"pose_keypoints_2d": [1, 2]}], "canvas_width": 9, "canvas_height": 9}], "frame 1"),
    ):
        with pytest.raises(FlexiActError, match=words):
            align(driving)
    with pytest.raises(FlexiActError, match="person 3: 1 people found"):
        align(frames(1), person="3")


def test_poses_are_drawn_on_their_canvas_or_at_any_size(running_node):
    (image,) = nodes.DrawPose.execute(poses=frames(3), **DRAW).args
    assert image.shape == (3, 64, 64, 3) and image.dtype == torch.float32 and 0 < image.max() <= 1
    (wide,) = nodes.DrawPose.execute(poses=frames(1), **DRAW | {"width": 96, "height": 32}).args
    assert wide.shape == (1, 32, 96, 3)
    (none,) = nodes.DrawPose.execute(poses=frames(1), **DRAW | {"body": False}).args
    assert not none.any()


def test_poses_are_drawn_over_a_picture(running_node):
    picture = torch.full((1, 32, 32, 3), 0.5)
    (over,) = nodes.DrawPose.execute(poses=frames(2), picture=picture, **DRAW).args
    (alone,) = nodes.DrawPose.execute(poses=frames(2), **DRAW).args
    hidden = alone.amax(-1) > 0
    torch.testing.assert_close(over[hidden], alone[hidden])
    assert (over[~hidden] - 0.5).abs().max() < 1e-6


def test_cancel_ends_drawing_within_a_frame(running_node, monkeypatch):
    import comfy.model_management

    comfy.model_management.interrupt_current_processing(True)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        nodes.DrawPose.execute(poses=frames(3), **DRAW)
    assert nodes.DrawPose.execute(poses=frames(3), **DRAW).args[0].shape[0] == 3


def test_core_draws_what_align_pose_gives_and_align_pose_reads_what_core_gives(running_node):
    """Both ways through ComfyUI's own drawing node, which fails on parts that are null."""
    from comfy_extras.nodes_sdpose import SDPoseDrawKeypoints, _to_openpose_frames

    generator = torch.Generator().manual_seed(0)
    places = (torch.rand(2, 133, 2, generator=generator) * 60).numpy()
    scores = torch.rand(2, 133, generator=generator).clamp(0.4).numpy()
    made = _to_openpose_frames([[place] for place in places], [[score] for score in scores], 64, 64)
    aligned, _ = align(made, method="none", width=64, height=64, keep_scores=True)
    for key in made[0]["people"][0]:
        assert aligned[0]["people"][0][key] == pytest.approx(made[0]["people"][0][key], abs=1e-4), key

    def draw(value):
        return SDPoseDrawKeypoints.execute(value, True, True, True, True, 4, 3, 0.3, True).args[0]

    torch.testing.assert_close(draw(aligned), draw(made))
    lacking = [{**made[0], "people": [made[0]["people"][0] | {"hand_left_keypoints_2d": None}]}]
    with pytest.raises((TypeError, ValueError)):
        draw(lacking)
    assert draw(align(lacking, method="none", width=64, height=64)[0]).any()
