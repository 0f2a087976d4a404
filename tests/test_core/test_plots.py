import pytest
import torch

from flexiact_core.plots import BACKGROUND, HEAT, LINES, draw_heat_map, draw_lines, draw_loss, tile_videos


def colours_in(picture):
    return {tuple(pixel) for pixel in (picture[0] * 255).round().int().flatten(0, 1).tolist()}


def test_a_plot_is_a_picture_with_a_line_for_each_series():
    picture = draw_lines([("up", [0, 1], [0, 1]), ("down", [0, 1], [1, 0])], title="two", x_label="x")
    assert picture.shape == (1, 360, 640, 3)
    assert set(LINES[:2]) <= colours_in(picture)


@pytest.mark.parametrize("heights, side", [([0, 1], "left"), ([1, 0], "right")], ids=["rising", "falling"])
def test_names_stand_where_the_lines_leave_room(heights, side):
    named, bare = (draw_lines([(name, [0, 1], heights)], title="", x_label="") for name in ("name", ""))
    columns = (named != bare)[0].any(-1).any(0).nonzero()
    assert len(columns) and (columns.max() < 320 if side == "left" else columns.min() > 320)


@pytest.mark.parametrize("values", [[], [0.5], [1.0, 1.0], [float("nan"), 2.0], [float("inf"), 2.0, 1.0]], ids=str)
def test_any_values_can_be_drawn(values):
    picture = draw_loss(values)
    assert torch.isfinite(picture).all()


def test_a_longer_training_draws_another_curve():
    assert not torch.equal(draw_loss([3.0, 2.0]), draw_loss([3.0, 2.0, 5.0]))


def test_a_heat_map_is_dark_at_0_bright_at_the_largest_value_and_empty_where_nothing_is_known():
    values = torch.tensor([[0.0, 0.2], [0.4, float("nan")]])
    picture = (draw_heat_map(values, title="t", x_label="x", y_label="y")[0] * 255).round().int()
    left, right, top, bottom = 56, 640 - 92, 32, 400 - 44

    def cell(row, column):
        x, y = left + (2 * column + 1) * (right - left) // 4, top + (2 * row + 1) * (bottom - top) // 4
        return tuple(picture[y, x].tolist())

    assert (cell(0, 0), cell(0, 1), cell(1, 0), cell(1, 1)) == (HEAT[0], HEAT[2], HEAT[-1], BACKGROUND)


@pytest.mark.parametrize(
    "values", [torch.full((3, 5), torch.nan), torch.zeros(1, 1), torch.ones(42, 50)], ids=["unknown", "none", "all"]
)
def test_any_shares_can_be_drawn(values):
    assert torch.isfinite(draw_heat_map(values, title="t", x_label="x", y_label="y")).all()


def test_tiles_have_a_row_for_each_video_and_the_videos_shape():
    wide = tile_videos([torch.rand(9, 40, 80, 3)] * 3, frames_each=4, side_px=80)
    assert wide.shape == (1, 3 * 44, 4 * 84, 3)
    first, last = wide[0, 2:42, 2:82], wide[0, 2:42, -82:-2]
    assert not torch.equal(first, last)
