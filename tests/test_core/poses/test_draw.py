"""Drawing: sizes, parts, colours, what lies outside, and what is held in memory."""

import tracemalloc

import pytest
import torch

from flexiact_core.errors import SettingError
from flexiact_core.poses.draw import COLOURS, Look, draw_frame, draw_poses
from flexiact_core.poses.sequence import PoseSequence
from flexiact_core.poses.skeletons import FACE, HAND_LEFT, PENN13


def dots(places: dict[int, tuple[float, float]], canvas=(64, 48), score=1.0, frames=1) -> PoseSequence:
    """Joints of one person by number, all others absent."""
    points, scores = torch.zeros(frames, 1, 134, 2), torch.zeros(frames, 1, 134)
    for joint, place in places.items():
        points[:, 0, joint], scores[:, 0, joint] = torch.tensor(place), score
    return PoseSequence(points, scores, canvas, 16.0)


def lit(frame: torch.Tensor) -> torch.Tensor:
    return (frame.amax(-1) > 0).nonzero().float()


def test_a_joint_is_a_disc_at_its_place_in_its_colour():
    look = Look(stroke=200, colours="openpose")
    frame = draw_poses(dots({4: (40, 20)}), look=look)[0]
    assert frame.shape == (48, 64, 3)
    torch.testing.assert_close(lit(frame).mean(0), torch.tensor([20.0, 40.0]) - 0.5, atol=0.6, rtol=0)
    assert (frame[20, 40] * 255).round().tolist() == list(COLOURS[4])
    # A radius of half the stroke: 100 / 2160 of the 48 pixels.
    assert len(lit(frame)) == pytest.approx(3.14159 * (100 / 2160 * 48) ** 2, rel=0.25)
    swapped = draw_poses(dots({4: (40, 20)}), look=Look(stroke=200))[0]
    assert torch.equal(swapped, frame.flip(-1))


def test_a_limb_joins_its_joints_and_is_darker_than_they_are():
    frame = draw_poses(dots({1: (10, 24), 2: (54, 24)}), look=Look(stroke=100, colours="openpose"))[0]
    assert (frame[24, 32] * 255).round().tolist() == [153, 0, 0]  # 0.6 of the first colour
    assert (frame[24, 10] * 255).round().tolist() == list(COLOURS[1])


def test_confidence_dims_and_low_ones_are_not_drawn():
    look = Look(stroke=100, colours="openpose")
    frame = draw_poses(dots({4: (40, 20)}, score=0.5), look=look)[0]
    assert (frame[20, 40] * 255).round().tolist() == [int(value * 0.5) for value in COLOURS[4]]
    assert not draw_poses(dots({4: (40, 20)}, score=0.3), look=look).any()
    assert draw_poses(dots({4: (40, 20)}, score=0.3), look=Look(stroke=100, min_score=0.1)).any()
    assert not draw_poses(dots({4: (40, 20)}, score=0.0), look=Look(stroke=100, min_score=0.0)).any()


@pytest.mark.parametrize(
    ("kind", "joints"), [("body", (1, 2)), ("hands", (HAND_LEFT.start, HAND_LEFT.start + 1)), ("face", (FACE.start,))]
)
def test_each_part_can_be_left_out(kind, joints):
    poses = dots({joint: (20 + 10 * number, 20) for number, joint in enumerate(joints)})
    parts = {"body": False, "hands": False, "face": False}
    assert draw_poses(poses, look=Look(**parts | {kind: True}, stroke=200)).any()
    assert not draw_poses(poses, look=Look(**{name: name != kind for name in parts}, stroke=200)).any()


def test_what_lies_outside_is_cut_and_does_not_fail():
    frame = draw_poses(dots({1: (-50, 24), 2: (30, 24), 4: (900, -900)}), look=Look(stroke=100))[0]
    columns = lit(frame)[:, 1]
    assert columns.min() == 0 and 28 <= columns.max() <= 33


def test_another_shape_is_covered_and_not_stretched():
    poses = dots({4: (32, 24), 7: (32, 14)}, canvas=(64, 48))
    frame = draw_poses(poses, 96, 96, Look(stroke=60))[0]
    rows = lit(frame)[:, 0].unique()
    # 96 / 48 = twice the size: 20 pixels apart, in the middle column.
    assert rows.min() == pytest.approx(28, abs=2) and rows.max() == pytest.approx(48, abs=2)
    assert lit(frame)[:, 1].mean() == pytest.approx(48, abs=1)


def test_over_a_picture_only_the_drawing_hides_it():
    picture = torch.full((1, 48, 64, 3), 0.25)
    poses = dots({4: (40, 20)}, frames=2)
    over = draw_poses(poses, look=Look(stroke=100), picture=picture)
    alone = draw_poses(poses, look=Look(stroke=100))
    drawn = alone.amax(-1, keepdim=True) > 0
    torch.testing.assert_close(over, torch.where(drawn, alone, 0.25))
    with pytest.raises(SettingError, match="1 or 2 frames expected"):
        draw_poses(poses, picture=picture.expand(3, -1, -1, -1))


def test_other_skeletons_are_drawn_too():
    poses = PoseSequence(torch.rand(1, 1, 13, 2) * 40, torch.ones(1, 1, 13), (48, 48), 16.0, PENN13)
    assert draw_poses(poses, look=Look(stroke=60)).any()


@pytest.mark.parametrize("size", [(2160, 2160), (2400, 2200), (1080, 1080), (17, 33)])
def test_any_size_is_drawn(size):
    """At 2160 each pixel is one of the canvas, above it several share one."""
    poses = dots({1: (size[0] * 0.2, size[1] / 2), 2: (size[0] * 0.8, size[1] / 2)}, canvas=size)
    frame = draw_frame(poses, 0)
    assert frame.shape == (size[1], size[0], 3) and frame.any()
    height = (frame.any(-1).sum(0)).max()
    assert height <= max(12, 12 * min(size) / 2160)


def test_nothing_larger_than_twice_the_canvas_is_held():
    width, height = 432, 768
    poses = dots({joint: (20 + 3 * joint, 30 + 5 * joint) for joint in range(134)}, canvas=(width, height))
    draw_frame(poses, 0)
    tracemalloc.start()
    draw_frame(poses, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    as_floats = width * height * 3 * 4
    # The release's canvas alone: 2160 x 3840 pixels, 25 MB.
    assert peak <= 2 * as_floats < 2160 * 3840 * 3


def test_drawing_stops_where_it_is_told():
    seen = []

    def stop(frame):
        seen.append(frame)
        if frame == 1:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        draw_poses(dots({4: (4, 4)}, frames=3), on_frame=stop)
    assert seen == [0, 1]


def test_looks_that_cannot_be_are_refused():
    with pytest.raises(SettingError, match="dynamictrl or openpose"):
        Look(colours="rainbow")
    with pytest.raises(SettingError, match="stroke"):
        Look(stroke=0)
