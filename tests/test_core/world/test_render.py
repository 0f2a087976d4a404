from dataclasses import replace

import numpy as np
import pytest

from flexiact_core.world.actions import ACTIONS, motion_of
from flexiact_core.world.render import render_background, render_clip, render_frames, render_sprite, track_of
from flexiact_core.world.scenes import SHAPES, sample_scene

SCENE = sample_scene(3)


@pytest.mark.parametrize("action", [None, *ACTIONS])
def test_frames_are_64_px_and_within_0_to_1(action):
    frames = render_clip(SCENE, action).frames
    assert frames.shape == (17, 64, 64, 3) and frames.dtype == np.float32
    assert frames.min() >= 0 and frames.max() <= 1


def test_rendering_is_deterministic():
    assert np.array_equal(render_clip(SCENE, "spin").frames, render_clip(SCENE, "spin").frames)


def test_every_action_begins_with_the_same_picture():
    first = render_clip(SCENE, None).frames[0]
    for action in ACTIONS:
        assert np.array_equal(render_clip(SCENE, action).frames[0], first)


def test_a_pan_moves_the_background_and_a_slide_does_not():
    corner = (slice(None), slice(0, 8), slice(0, 8))
    assert np.ptp(render_clip(SCENE, "slide").frames[corner], axis=0).max() == 0
    assert np.ptp(render_clip(SCENE, "pan").frames[corner], axis=0).max() > 0.02


def test_the_ground_truth_is_where_the_sprite_is_drawn():
    track = track_of(SCENE, motion_of("hop"))
    cover = render_sprite(SCENE, track)[1]
    columns = np.arange(64) + 0.5
    x = (cover.sum(1) * columns).sum(1) / cover.sum((1, 2))
    assert np.allclose(x, track.x, atol=0.3)


def test_a_zoom_spreads_the_world_about_the_centre():
    track = track_of(SCENE, motion_of("zoom"))
    assert np.allclose(track.x - 32, (SCENE.x - 32) * track.zoom)
    assert np.allclose(track.radius, SCENE.radius * track.zoom)


def test_a_turn_shows_on_every_shape():
    for shape in SHAPES:
        frames = render_clip(replace(SCENE, shape=shape), "spin").frames
        assert np.abs(frames[-1] - frames[0]).max() > 0.2


def test_the_background_is_what_is_left_without_the_sprite():
    motion = motion_of("pan")
    frames = render_frames(SCENE, motion)
    away = render_sprite(SCENE, track_of(SCENE, motion))[1] == 0
    background = render_background(SCENE, motion.pan, motion.zoom)
    assert np.array_equal(frames[away], background[away])


def test_an_unknown_shape_is_refused():
    with pytest.raises(ValueError, match="no shape is called 'star'"):
        render_clip(replace(SCENE, shape="star"), None)


def test_a_turned_subject_comes_upright_in_six_frames():
    turned = replace(SCENE, angle=90.0)
    upright, moved = render_clip(SCENE, "slide"), render_clip(turned, "slide")
    assert moved.track.angle[0] == 90 and moved.track.angle[3] == pytest.approx(45)
    assert np.abs(moved.track.angle[6:]).max() < 1e-9
    np.testing.assert_allclose(moved.frames[6:], upright.frames[6:], atol=1e-6)
    assert np.abs(moved.frames[3] - upright.frames[3]).max() > 0.1


def test_a_landmark_is_where_the_scene_says_and_grows_with_a_zoom():
    bare = replace(SCENE, stones=())
    one = replace(SCENE, stones=((20.0, 44.0, 6.0, 1.0),))
    pan, zoom = np.array([0.0, 8.0, 0.0]), np.array([1.0, 1.0, 1.5])
    added = (render_background(one, pan, zoom) - render_background(bare, pan, zoom)).sum(-1) > 0.15
    rows, columns = np.mgrid[0:64, 0:64] + 0.5
    for seen, (x, y, radius) in zip(added, [(20, 44, 6), (12, 44, 6), (14, 50, 9)], strict=True):
        assert abs(columns[seen].mean() - x) < 1 and abs(rows[seen].mean() - y) < 1
        assert seen.sum() == pytest.approx(np.pi * radius**2, rel=0.3)
