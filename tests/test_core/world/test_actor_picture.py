"""The measure of the small people as a picture."""

import pytest

from flexiact_core.errors import ShapeError
from flexiact_core.world.actor_cases import example_case
from flexiact_core.world.actor_picture import WIDTH_PX, draw_actor_measure
from flexiact_core.world.actor_render import render_actor


def test_the_true_video_is_drawn_and_measured_as_true():
    case = example_case(0, "jumping_jacks")
    picture, seen = draw_actor_measure(render_actor(case.actor, case.performance), case)
    assert picture.shape[2:] == (WIDTH_PX, 3) and 0 <= picture.min() and picture.max() <= 1
    assert seen.follow > 0.97 and seen.nearest == "jumping_jacks"


def test_a_video_of_another_length_is_a_sentence():
    case = example_case(0, "wave")
    with pytest.raises(ShapeError, match="21 of 64x64"):
        draw_actor_measure(render_actor(case.actor, case.performance)[:17], case)
