"""The measure of the small AMG as a picture."""

import pytest

from flexiact_core.errors import ShapeError
from flexiact_core.world.take_cases import example_take
from flexiact_core.world.take_picture import WIDTH_PX, draw_take_measure
from flexiact_core.world.takes import render_take


def test_the_true_video_is_drawn_and_measured_as_true():
    case = example_take(0, "wave", "left")
    picture, seen, less = draw_take_measure(render_take(case.take), case)
    assert picture.shape[2:] == (WIDTH_PX, 3) and 0 <= picture.min() and picture.max() <= 1
    assert seen.overlap > 0.8 and seen.scene == case.take.scene and less > 0.3


def test_a_video_of_another_length_is_a_sentence():
    case = example_take(0, "wave", "left")
    with pytest.raises(ShapeError, match="8 of 64x64"):
        draw_take_measure(render_take(case.take)[:5], case)
