"""The small world's nodes: example inputs with a known truth, and the measure of a video against it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

world = pytest.importorskip("flexiact_pack.nodes.world", reason="needs ComfyUI: run `make test`")

from flexiact_core.world.shipped import example as example_of  # noqa: E402


def example(target=0, action="jump"):
    return world.LoadExampleAction.execute(target, action).args


def test_an_example_is_the_worlds_own():
    image, prompt, reference, caption, truth = example(3, "spin")
    expected = example_of("spin", 3)
    np.testing.assert_allclose(image[0].numpy(), expected.image)
    components = reference.get_components()
    np.testing.assert_allclose(components.images.numpy(), expected.reference)
    assert components.frame_rate == 8 and len(components.images) == 17
    assert (prompt, caption, truth[1]) == (expected.caption, expected.reference_caption, "spin")
    assert "spin" not in prompt and "spin" not in caption


@pytest.mark.parametrize("action", ["jump", "grow"])
def test_the_true_video_is_measured_as_true_and_a_still_one_as_nothing(action):
    from flexiact_core.world.render import render_clip

    image, *_, truth = example(1, action)
    scene, _ = truth
    moving = torch.from_numpy(render_clip(scene, action).frames)
    picture, slope, nearest, identity, subject, score = world.MeasureAction.execute(moving, truth).args
    assert slope == pytest.approx(1, abs=0.05) and nearest == action
    assert identity > 0.9 and subject == "the subject is whole" and score > 0.9
    assert picture.ndim == 4 and picture.shape[-1] == 3
    still = image.expand(17, -1, -1, -1)
    _, slope, _, identity, _, score = world.MeasureAction.execute(still, truth).args
    assert slope == pytest.approx(0, abs=0.05) and identity > 0.9
    assert score < 0.1


def test_an_example_person_has_a_picture_poses_and_drawn_poses_of_one_truth():
    image, prompt, poses, drawn, case = world.LoadExamplePerson.execute(3, "kick").args
    assert image.shape == (1, 64, 64, 3) and drawn.shape == (21, 64, 64, 3) and len(poses) == 21
    assert "kick" not in prompt and case.action == "kick"
    flat = poses[0]["people"][0]["pose_keypoints_2d"]
    assert len(flat) == 54 and poses[0]["canvas_width"] == 64


def test_the_true_video_of_a_person_is_measured_as_true_and_a_still_one_as_less():
    from flexiact_core.world.actor_render import render_actor

    image, *_, case = world.LoadExamplePerson.execute(2, "jumping_jacks").args
    moving = render_actor(case.actor, case.performance)
    picture, near, slope, nearest = world.MeasurePerson.execute(moving, case).args
    assert near > 0.97 and slope == pytest.approx(1, abs=0.08) and nearest == "jumping_jacks"
    assert picture.ndim == 4 and picture.shape[-1] == 3
    _, near, slope, _ = world.MeasurePerson.execute(image.expand(21, -1, -1, -1), case).args
    assert near < 0.65 and slope == pytest.approx(0, abs=0.05)


def test_an_example_avatar_has_a_puppet_and_words_of_one_truth():
    avatar, prompt, case = world.LoadExampleAvatar.execute(3, "kick", "around").args
    assert avatar.shape == (8, 64, 64, 3) and avatar[:, 0, 0].max() == 0
    assert "kick" not in prompt and prompt.endswith(case.take.scene)
    assert (case.action, case.camera) == ("kick", "around")


def test_the_true_video_of_an_avatar_is_measured_as_true_and_a_still_one_as_less():
    from flexiact_core.world.takes import render_take

    *_, case = world.LoadExampleAvatar.execute(2, "jumping_jacks", "left").args
    moving = render_take(case.take)
    picture, overlap, camera, scene = world.MeasureAvatar.execute(moving, case).args
    assert overlap > 0.8 and camera > 0.3 and scene == case.take.scene
    assert picture.ndim == 4 and picture.shape[-1] == 3
    _, still, _, _ = world.MeasureAvatar.execute(moving[:1].expand(8, -1, -1, -1), case).args
    assert still < overlap - 0.2
