"""From a pose and a word to poses over time."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from flexiact_core.act_vae.letterbox import grow_box, person_box, to_box
from flexiact_core.act_vae.loading import make_model
from flexiact_core.act_vae.model import draw_noise, roll_out
from flexiact_core.act_vae.predict import HowTo, predict_poses, spread_smoothly
from flexiact_core.act_vae.source import standing_source
from flexiact_core.errors import SettingError
from flexiact_core.poses.skeletons import PENN13

SOURCE = standing_source(640, 480)


@pytest.fixture(scope="module")
def model(small_parts):
    return make_model(small_parts, name="small")


def places(prediction, variant: int = 0) -> torch.Tensor:
    return prediction.variants[variant].points[:, 0]


def test_poses_are_those_of_the_network_in_the_box_of_the_person(model):
    made = predict_poses(model, SOURCE, "squat", HowTo(seed=3))
    box = grow_box(person_box(SOURCE.points), model.margin)
    start = to_box(SOURCE.points, box).flatten()[None]
    noise = draw_noise(1, 4, model.predictor.latent, torch.Generator().manual_seed(3))
    expected = roll_out(model.predictor, start, torch.tensor([model.actions.index("squat")]), noise).poses[0]
    # By hand: out of -1..1 into 128 px, without the border, into pixels of the canvas.
    scale = 128 / (box[2:] - box[:2]).max()
    border = (128 - ((box[2:] - box[:2]) * scale).round()) / 2
    pixels = ((expected.unflatten(-1, (13, 2)) + 1) * 64 - border) / scale + box[:2]
    assert_close(places(made)[1:], pixels, atol=1e-3, rtol=1e-5)
    assert_close(places(made)[0], SOURCE.points)
    (clip,) = made.variants
    assert (clip.layout, clip.canvas, clip.fps, clip.num_frames) == (PENN13, (640, 480), 8.0, 5)


def test_one_seed_gives_one_course_and_a_variant_is_that_of_its_own_seed(model):
    three = predict_poses(model, SOURCE, "golf_swing", HowTo(variants=3, seed=7))
    for variant in range(3):
        alone = predict_poses(model, SOURCE, "golf_swing", HowTo(seed=7 + variant))
        assert_close(places(three, variant), places(alone), atol=1e-3, rtol=0)
    assert (places(three, 0) - places(three, 1)).abs().max() > 1e-3


def test_without_random_numbers_every_variant_is_the_same(model):
    made = predict_poses(model, SOURCE, "pullup", HowTo(variants=2, temperature=0.0))
    assert_close(places(made, 0), places(made, 1))


def test_a_chain_goes_on_from_the_last_pose_of_a_window(model):
    """Windows of four with the generator going on: the second is what the first's last pose leads to."""
    made = predict_poses(model, SOURCE, "squat", HowTo(steps=6, chain=True, seed=1))
    box = grow_box(person_box(SOURCE.points), model.margin)
    generator, action = torch.Generator().manual_seed(1), torch.tensor([model.actions.index("squat")])
    pose, expected = to_box(SOURCE.points, box).flatten()[None], []
    for steps in (4, 2):
        noise = torch.randn(steps + 1, model.predictor.latent, generator=generator)[:, None]
        poses = roll_out(model.predictor, pose, action, noise).poses
        expected.append(poses[0])
        pose = poses[:, -1]
    assert_close(to_box(places(made)[1:], box).flatten(1), torch.cat(expected), atol=1e-4, rtol=0)
    assert any("2 windows: the model was trained for 4 steps" in note for note in made.notes)


def test_more_steps_in_one_go_than_were_trained_are_said(model):
    assert any("trained for 4 steps" in note for note in predict_poses(model, SOURCE, "squat", HowTo(steps=5)).notes)
    assert not any("trained" in note for note in predict_poses(model, SOURCE, "squat", HowTo(steps=4)).notes)


@pytest.mark.parametrize("num_frames", [2, 13, 21, 50])
def test_any_number_of_frames_goes_from_the_first_pose_to_the_last(model, num_frames):
    plain = places(predict_poses(model, SOURCE, "squat", HowTo()))
    spread = predict_poses(model, SOURCE, "squat", HowTo(num_frames=num_frames, fps=12.0))
    assert (spread.variants[0].num_frames, spread.variants[0].fps) == (num_frames, 12.0)
    assert_close(places(spread)[[0, -1]], plain[[0, -1]], atol=1e-3, rtol=0)


def test_a_curve_goes_through_every_pose_and_is_straight_where_they_are():
    points = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0]).view(1, 5, 1, 1).expand(1, 5, 13, 2)
    assert_close(spread_smoothly(points, 9)[0, :, 0, 0], torch.arange(9) / 2)
    bent = torch.tensor([0.0, 1.0, 0.0, -1.0, 0.0]).view(1, 5, 1, 1).expand(1, 5, 13, 2)
    assert_close(spread_smoothly(bent, 13)[:, ::3], bent, atol=1e-6, rtol=0)
    # Smooth: between two poses it is not the straight line.
    assert abs(float(spread_smoothly(bent, 9)[0, 1, 0, 0]) - 0.5) > 0.05


def test_an_action_of_another_model_is_named_with_those_there_are(model):
    with pytest.raises(SettingError, match="action 'moonwalk': small does not have it. Choose one of tennis_serve, "):
        predict_poses(model, SOURCE, "moonwalk")


@pytest.mark.parametrize(
    ("how", "words"),
    [
        (HowTo(steps=65), "steps 65"),
        (HowTo(variants=0), "variants 0"),
        (HowTo(temperature=float("nan")), "temperature nan"),
        (HowTo(num_frames=1), "num_frames 1"),
    ],
)
def test_settings_out_of_range_are_said(model, how, words):
    with pytest.raises(SettingError, match=words):
        predict_poses(model, SOURCE, "squat", how)


def test_the_source_and_its_notes_come_through(model):
    made = predict_poses(model, SOURCE, "squat")
    assert made.notes[0] == SOURCE.notes[0] and "squat: 4 poses" in made.notes[1]
    assert "5 frames as predicted, 0.62 s at 8 frames a second" in made.notes[-1]
