from dataclasses import replace

import numpy as np
import pytest

from flexiact_core.world.actions import ACTIONS, motion_of
from flexiact_core.world.measure import measure_action, measure_identity, measure_video, read_track, score
from flexiact_core.world.render import render_clip, render_frames
from flexiact_core.world.scenes import SHAPES, sample_posed_target, sample_scene, sample_target

SCENES = [sample_target(k, sample_scene(50 + k)) for k in range(2)]


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: f"{scene.colour}_{scene.shape}")
def test_the_true_video_is_read_as_its_ground_truth(scene, action):
    clip = render_clip(scene, action)
    track = read_track(clip.frames, scene)
    tolerances = {"x": 1.0, "y": 1.0, "radius": 0.8, "pan": 1.6, "zoom": 0.1}
    for field, tolerance in tolerances.items():
        assert np.abs(getattr(track, field) - getattr(clip.track, field)).max() < tolerance, field
    turned = (track.angle - clip.track.angle + 180) % 360 - 180
    assert np.abs(turned).max() < 13


@pytest.mark.parametrize("action", ACTIONS)
def test_the_true_video_scores_full_marks(action):
    scene = SCENES[0]
    fidelity = measure_action(render_clip(scene, action).frames, scene, action)
    assert fidelity.nearest == action
    assert fidelity.slope == pytest.approx(1.0, abs=1e-6)
    assert fidelity.cosine == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("action", ["jump", "grow", "pan", "roll"])
def test_noise_does_not_change_what_is_read(action):
    scene = SCENES[1]
    frames = render_clip(scene, action).frames
    noisy = frames + np.random.default_rng(0).normal(0, 0.04, frames.shape).astype(np.float32)
    fidelity = measure_action(noisy.clip(0, 1), scene, action)
    assert fidelity.nearest == action
    assert 0.9 < fidelity.slope < 1.1


def test_a_frozen_video_shows_no_action():
    scene = SCENES[0]
    still = render_clip(scene, None).frames
    for action in ACTIONS:
        assert abs(measure_action(still, scene, action).slope) < 0.05


def test_half_an_action_has_half_the_slope():
    scene = SCENES[0]
    frames = render_clip(scene, "slide").frames
    # The first half of an eased move, slowed down: it ends halfway.
    half = frames[np.arange(17) // 2]
    assert 0.2 < measure_action(half, scene, "slide").slope < 0.6


def test_a_video_is_not_taken_for_another_action():
    scene = SCENES[0]
    assert measure_action(render_clip(scene, "hop").frames, scene, "jump").nearest == "hop"


def test_the_true_video_keeps_its_identity():
    for scene in SCENES:
        identity = measure_identity(render_clip(scene, "roll").frames, scene)
        assert identity.right_shape == 1.0
        assert identity.colour < 0.01 and identity.shape < 0.12 and identity.background < 0.01


def test_another_shape_or_colour_or_background_is_noticed():
    scene = SCENES[0]
    own = measure_identity(render_clip(scene, "jump").frames, scene)
    other_shape = next(shape for shape in ("cross", "triangle") if shape != scene.shape)
    assert len(SHAPES) == 4
    swapped = measure_identity(render_clip(replace(scene, shape=other_shape), "jump").frames, scene)
    assert swapped.right_shape < 0.2 and swapped.shape > own.shape + 0.1
    dimmed = render_clip(scene, "jump").frames * 0.9
    faded = measure_identity(dimmed, scene)
    assert faded.colour > own.colour + 0.02 and faded.background > own.background + 0.02


def scored(frames, scene, action):
    return score(*measure_video(frames, scene, action))


def blurred(frames):
    # Each pixel is the mean of 11 x 11.
    for axis in (1, 2):
        padded = np.pad(frames, [(5, 5) if a == axis else (0, 0) for a in range(4)], mode="edge")
        frames = np.lib.stride_tricks.sliding_window_view(padded, 11, axis=axis).mean(-1)
    return frames


@pytest.mark.parametrize("action", ["jump", "spin", "grow", "zoom"])
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: f"{scene.colour}_{scene.shape}")
def test_a_frozen_a_blurred_and_a_wrong_subject_score_low_and_the_true_video_high(scene, action):
    true = render_clip(scene, action).frames
    assert scored(true, scene, action) > 0.95
    assert scored(render_clip(scene, None).frames, scene, action) < 0.1
    assert scored(blurred(blurred(true)), scene, action) < 0.5
    other = replace(scene, shape="square", colour="purple")
    wrong = np.concatenate([true[:1], render_clip(other, action).frames[1:]])
    assert scored(wrong, scene, action) < 0.5


def test_identity_says_in_words_what_its_number_says():
    scene = SCENES[0]
    true = render_clip(scene, "slide").frames
    assert measure_identity(true, scene).words == "the subject is whole"
    assert measure_identity(blurred(blurred(true)), scene).words == "the subject is lost"
    # It leaves the picture after the third frame.
    gone = np.concatenate([true[:3], np.repeat(true[:1, :1, :1], 14, axis=0) + np.zeros_like(true[3:])])
    assert measure_identity(gone, scene).words == "the subject is lost"


def test_a_subject_that_half_the_time_has_another_shape_has_changed():
    scene = SCENES[0]
    true = render_clip(scene, "jump").frames
    other = render_clip(replace(scene, shape="cross" if scene.shape != "cross" else "circle"), "jump").frames
    mixed = np.where((np.arange(17) % 2 == 0)[:, None, None, None], true, other)
    assert measure_identity(mixed, scene).likeness < measure_identity(true, scene).likeness - 0.2


def test_a_turned_subject_has_to_come_upright():
    scene = sample_posed_target(0, sample_scene(50))
    for action in ("jump", "grow"):
        upright = measure_action(render_clip(scene, action).frames, scene, action)
        as_it_was = measure_action(render_frames(scene, motion_of(action)), scene, action)
        assert upright.nearest == action and upright.closeness == pytest.approx(1)
        assert as_it_was.nearest == f"{action} without coming upright"
    assert measure_action(render_clip(scene, None).frames, scene, "jump").nearest == "still"
