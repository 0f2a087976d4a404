"""People filmed twice: what the gray puppet and the dressed person have in common, and what only a caption tells."""

from dataclasses import replace

import pytest
import torch

from flexiact_core.metrics.silhouettes import overlap
from flexiact_core.world.actors import HELD_OUT_CLOTHES, TRAINED_CLOTHES
from flexiact_core.world.takes import (
    CAMERAS,
    SCENES,
    by_camera,
    film,
    moments_of,
    render_avatar,
    render_take,
    sample_take,
    seen_joints,
    take_caption,
    take_mask,
    take_vocabulary,
)


def test_a_take_is_the_same_for_the_same_seed_and_another_for_another():
    first, again, other = render_take(sample_take(3)), render_take(sample_take(3)), render_take(sample_take(4))
    assert first.shape == (8, 64, 64, 3) and 0 <= first.min() and first.max() <= 1
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_the_puppet_is_gray_on_black_and_stands_where_the_person_does():
    for seed in range(4):
        take = sample_take(seed)
        avatar = render_avatar(take)
        assert torch.equal(avatar[..., 0], avatar[..., 2]) and not avatar[:, 0, 0].any()
        assert overlap((avatar[..., 0] > 0.4).numpy(), take_mask(take).numpy()).mean() > 0.85


def test_clothes_and_scene_are_the_captions_alone():
    take = sample_take(5)
    actor = replace(take.actor, shirt="white", trousers="olive", skin="tan")
    other = replace(take, scene="sky" if take.scene != "sky" else "sand", actor=actor)
    assert torch.equal(render_avatar(take), render_avatar(other))
    assert take_caption(other) == f"a tan person in white and olive before {other.scene}" != take_caption(take)
    assert set(take_caption(take, "brick").split()) <= set(take_vocabulary())
    assert not torch.allclose(render_take(take), render_take(other), atol=0.1)


def test_a_scene_shows_its_colour_away_from_people_and_a_darker_floor_below():
    take = sample_take(6)
    top, bottom = (render_take(take)[:, row, 0].mean(0) for row in (1, -1))
    torch.testing.assert_close(top, torch.tensor(SCENES[take.scene]))
    assert (bottom < top).all()


@pytest.mark.parametrize("camera, moved", [("right", -20.0), ("left", 20.0)])
def test_people_move_against_the_camera(camera, moved):
    joints = seen_joints(replace(sample_take(0), shot=film("wave", camera)))
    head = joints[:, 0, 0]
    assert float(head[-1] - head[0]) == pytest.approx(moved, abs=3)


def test_a_camera_that_zooms_in_makes_people_larger_by_what_it_says():
    take = by_camera(sample_take(1), "in")
    spread = seen_joints(take)[..., 1].amax(1) - seen_joints(take)[..., 1].amin(1)
    still = seen_joints(replace(take, shot=replace(take.shot, zoom=torch.ones(8))))[..., 1]
    torch.testing.assert_close(spread / (still.amax(1) - still.amin(1)), take.shot.zoom)
    grown = take_mask(take).sum((1, 2)).float()
    assert float(grown[-1] / grown[0]) == pytest.approx((1.25 / 0.8) ** 2, rel=0.25)


def test_cameras_film_the_same_motion_from_places_that_differ():
    take = sample_take(2)
    masks = {name: take_mask(by_camera(take, name)).numpy() for name in CAMERAS}
    assert all(overlap(masks["right"], masks[name]).mean() < 0.6 for name in CAMERAS if name != "right")
    assert torch.equal(by_camera(take, "in").shot.postures, take.shot.postures)


def test_some_frames_of_a_take_are_those_of_the_whole():
    take = sample_take(4)
    torch.testing.assert_close(render_take(moments_of(take, [5, 2])), render_take(take)[[5, 2]])


def test_unknown_actions_and_cameras_are_refused():
    with pytest.raises(KeyError):
        film("fly", "right")
    with pytest.raises(KeyError):
        by_camera(sample_take(0), "upwards")


def test_no_training_shows_the_clothes_that_are_held_out():
    shown = {(take.actor.shirt, take.actor.trousers) for take in map(sample_take, range(60))}
    assert shown <= set(TRAINED_CLOTHES) and not shown & set(HELD_OUT_CLOTHES)
