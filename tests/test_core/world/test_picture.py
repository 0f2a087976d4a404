import pytest
import torch

from flexiact_core.errors import ShapeError
from flexiact_core.world.picture import draw_measure
from flexiact_core.world.render import render_clip
from flexiact_core.world.shipped import example


def test_the_true_video_is_measured_as_the_whole_action():
    target = example("slide", 2).target
    picture, fidelity, identity = draw_measure(torch.from_numpy(render_clip(target, "slide").frames), target, "slide")
    assert picture.ndim == 4 and picture.shape[-1] == 3
    assert fidelity.nearest == "slide" and fidelity.slope == pytest.approx(1, abs=0.01)
    assert identity.right_shape == 1


def test_a_still_video_shows_none_of_it():
    target = example("slide", 2).target
    _, fidelity, _ = draw_measure(torch.from_numpy(render_clip(target, None).frames), target, "slide")
    assert fidelity.slope == pytest.approx(0, abs=0.01)


def test_a_video_of_another_size_is_refused_with_what_is_needed():
    with pytest.raises(ShapeError, match="17 of 64x64 pixels expected"):
        draw_measure(torch.rand(49, 48, 72, 3), example("jump").target, "jump")
