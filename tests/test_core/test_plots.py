import pytest
import torch

from flexiact_core.plots import LINES, draw_lines, draw_loss, tile_videos


def colours_in(picture):
    return {tuple(pixel) for pixel in (picture[0] * 255).round().int().flatten(0, 1).tolist()}


def test_a_plot_is_a_picture_with_a_line_for_each_series():
    picture = draw_lines([("up", [0, 1], [0, 1]), ("down", [0, 1], [1, 0])], title="two", x_label="x")
    assert picture.shape == (1, 360, 640, 3)
    assert set(LINES[:2]) <= colours_in(picture)


@pytest.mark.parametrize("values", [[], [0.5], [1.0, 1.0], [float("nan"), 2.0], [float("inf"), 2.0, 1.0]], ids=str)
def test_any_values_can_be_drawn(values):
    picture = draw_loss(values)
    assert torch.isfinite(picture).all()


def test_a_longer_training_draws_another_curve():
    assert not torch.equal(draw_loss([3.0, 2.0]), draw_loss([3.0, 2.0, 5.0]))


def test_tiles_have_a_row_for_each_video_and_the_videos_shape():
    wide = tile_videos([torch.rand(9, 40, 80, 3)] * 3, frames_each=4, side_px=80)
    assert wide.shape == (1, 3 * 44, 4 * 84, 3)
    first, last = wide[0, 2:42, 2:82], wide[0, 2:42, -82:-2]
    assert not torch.equal(first, last)
