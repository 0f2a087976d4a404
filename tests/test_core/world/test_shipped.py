import numpy as np
import pytest

from flexiact_core.world import shipped
from flexiact_core.world.actions import ACTIONS
from flexiact_core.world.measure import measure_action


@pytest.mark.parametrize("action", ACTIONS)
def test_an_example_shows_the_action_in_another_scene(action):
    example = shipped.example(action, target=1)
    reference = shipped.REFERENCE
    assert measure_action(example.reference, reference, action).nearest == action
    assert example.image.shape == (64, 64, 3)
    assert example.target.shape != reference.shape
    assert ACTIONS[action].verb not in example.caption + example.reference_caption


def test_examples_are_the_same_every_time():
    assert np.array_equal(shipped.example("jump", 2).image, shipped.example("jump", 2).image)


def test_an_unknown_action_is_refused():
    with pytest.raises(KeyError):
        shipped.example("fly")


def test_the_same_target_number_is_the_same_subject_in_every_action():
    assert len({shipped.example(action, 3).target for action in ACTIONS}) == 1
