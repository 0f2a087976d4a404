from dataclasses import replace

import numpy as np
import pytest

from flexiact_core.world.actions import ACTIONS, SEEN_ACTIONS, UNSEEN_ACTIONS
from flexiact_core.world.scenes import (
    COLOURS,
    HELD_OUT_PAIRS,
    SHAPES,
    TRAINED_PAIRS,
    caption,
    in_any_colour,
    sample_far_target,
    sample_posed_target,
    sample_scene,
    sample_target,
    vocabulary,
)


def test_the_same_seed_gives_the_same_scene():
    assert sample_scene(5) == sample_scene(5) != sample_scene(6)


def test_held_out_pairs_are_in_no_trained_scene():
    trained = {(scene.shape, scene.colour) for scene in map(sample_scene, range(2000))}
    assert trained == set(TRAINED_PAIRS)
    assert trained.isdisjoint(HELD_OUT_PAIRS)


def test_every_shape_and_colour_of_a_held_out_pair_is_trained_on():
    assert {shape for shape, _ in TRAINED_PAIRS} == set(SHAPES)
    assert {colour for _, colour in TRAINED_PAIRS} == set(COLOURS)


@pytest.mark.parametrize("seed", range(20))
def test_a_target_shares_nothing_with_its_reference(seed):
    reference = sample_scene(seed)
    target = sample_target(seed, reference)
    assert (target.shape, target.colour) in HELD_OUT_PAIRS
    for field in ("shape", "colour", "tone", "pattern"):
        assert getattr(target, field) != getattr(reference, field)
    assert abs(target.radius - reference.radius) >= 1
    assert np.hypot(target.x - reference.x, target.y - reference.y) >= 5


@pytest.mark.parametrize("seed", range(6))
def test_a_far_target_starts_where_no_trained_scene_starts(seed):
    target = sample_far_target(seed, sample_scene(seed))
    strange = (not 25 <= target.x <= 37, not 11 <= target.radius <= 14)
    assert sum(strange) == 1


@pytest.mark.parametrize("seed", range(6))
def test_a_posed_target_is_a_target_that_is_turned(seed):
    reference = sample_scene(seed)
    target = sample_posed_target(seed, reference)
    assert replace(target, angle=0.0) == sample_target(seed, reference)
    assert 50 <= abs(target.angle) <= 130


def test_every_scene_has_landmarks_of_its_own():
    stones = [sample_scene(seed).stones for seed in range(20)]
    assert len(set(stones)) == 20 and all(len(some) == 6 for some in stones)


def test_a_colour_without_a_name_is_in_no_caption():
    rng = np.random.default_rng(0)
    scene = sample_scene(3)
    mixed = in_any_colour(scene, rng)
    assert mixed.rgb != scene.rgb and replace(mixed, mixed=None) == scene
    assert caption(mixed) == caption(scene).replace(f"{scene.colour} ", "", 1)


def test_captions_name_the_action_only_if_asked():
    scene = sample_scene(0)
    verbs = [action.verb for action in ACTIONS.values()]
    assert not any(verb in caption(scene).split() for verb in verbs)
    assert "jumps" in caption(scene, "jump").split()


def test_the_vocabulary_covers_all_captions_and_no_unseen_action():
    words = set(vocabulary())
    for seed in range(200):
        for action in (None, *SEEN_ACTIONS):
            assert set(caption(sample_scene(seed), action).split()) <= words
    assert words.isdisjoint(ACTIONS[name].verb for name in UNSEEN_ACTIONS)
    assert len(words) == len(vocabulary())
