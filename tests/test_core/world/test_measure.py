import numpy as np
import pytest

from flexiact_core.world.actions import ACTIONS
from flexiact_core.world.measure import measure_action, measure_identity, read_track
from flexiact_core.world.render import render_clip
from flexiact_core.world.scenes import SHAPES, sample_scene, sample_target

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
    assert np.abs(turned).max() < 10


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
    from dataclasses import replace

    scene = SCENES[0]
    own = measure_identity(render_clip(scene, "jump").frames, scene)
    other_shape = next(shape for shape in ("cross", "triangle") if shape != scene.shape)
    assert len(SHAPES) == 4
    swapped = measure_identity(render_clip(replace(scene, shape=other_shape), "jump").frames, scene)
    assert swapped.right_shape < 0.2 and swapped.shape > own.shape + 0.1
    dimmed = render_clip(scene, "jump").frames * 0.9
    faded = measure_identity(dimmed, scene)
    assert faded.colour > own.colour + 0.02 and faded.background > own.background + 0.02
