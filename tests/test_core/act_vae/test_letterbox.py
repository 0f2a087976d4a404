"""Pixels to the numbers the networks know, and back."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from flexiact_core.act_vae.letterbox import (
    HIGHEST,
    check_box,
    from_box,
    grow_box,
    person_box,
    share_outside,
    to_box,
)
from flexiact_core.errors import ShapeError

BOXES = {"wide": [10.0, 20.0, 310.0, 120.0], "tall": [5.0, 6.0, 105.0, 411.0], "square": [0.0, 0.0, 256.0, 256.0]}
each_box = pytest.mark.parametrize("box", [torch.tensor(box) for box in BOXES.values()], ids=BOXES)


def inside(box: torch.Tensor) -> torch.Tensor:
    shares = torch.rand(5, 13, 2, generator=torch.Generator().manual_seed(0)) * 0.9 + 0.05
    return box[:2] + shares * (box[2:] - box[:2])


@each_box
def test_there_and_back_is_the_same_place(box):
    points = inside(box)
    assert_close(from_box(to_box(points, box), box), points, atol=1e-4, rtol=0)


def test_the_numbers_are_those_of_the_release_by_hand():
    """A box of 100 x 50 at 10, 20: scaled by 1.28, 64 px high, so 32 px of border above."""
    box, point = torch.tensor([10.0, 20.0, 110.0, 70.0]), torch.tensor([[60.0, 45.0], [10.0, 20.0]])
    across, down = (60 - 10) * 1.28, (45 - 20) * 1.28 + 32
    expected = torch.tensor([[2 * across / 128 - 1, 2 * down / 128 - 1], [-1.0, 2 * 32 / 128 - 1]])
    assert_close(to_box(point, box), expected)


@each_box
def test_joints_outside_the_square_end_on_its_border(box):
    far = torch.tensor([[1e4, -1e4]])
    assert to_box(far, box).tolist() == [[pytest.approx(HIGHEST), -1.0]] and HIGHEST == 0.984375


def test_boxes_of_many_clips_are_those_of_each():
    boxes = torch.tensor(list(BOXES.values()))
    points = torch.stack([inside(box) for box in boxes])
    together = to_box(points, boxes[:, None])
    for clip, box, own in zip(points, boxes, together):
        assert_close(to_box(clip, box), own)


def test_a_border_is_a_share_of_the_longer_side():
    assert grow_box(torch.tensor([0.0, 0.0, 100.0, 50.0]), 0.1).tolist() == [-10.0, -10.0, 110.0, 60.0]


@pytest.mark.parametrize("side", [0.0, 7.9, float("inf"), float("nan")])
def test_a_box_without_a_person_is_refused(side):
    box = person_box(torch.tensor([[0.0, 0.0], [side, side]]))
    with pytest.raises(ShapeError, match="within .* px"):
        check_box(box)


def test_how_much_lies_outside_the_canvas():
    points = torch.tensor([[0.0, 0.0], [100.0, 50.0], [101.0, 0.0], [0.0, -1.0]])
    assert share_outside(points, (100, 50)) == 0.5
