"""Motion fidelity: its known values, what it does not depend on, and whether it knows an action again."""

from __future__ import annotations

import math

import pytest
import torch

from flexiact_core.errors import ShapeError
from flexiact_core.metrics.motion import motion_fidelity, moving_fidelity
from flexiact_core.metrics.tracks import Tracks, track_points


def tracks(paths: torch.Tensor, seen: torch.Tensor | None = None) -> Tracks:
    return Tracks(paths, torch.ones(paths.shape[:2], dtype=torch.bool) if seen is None else seen, 64, 64)


def going(*directions: tuple[float, float], steps: int = 8, start: float = 20.0) -> torch.Tensor:
    """Points that go one of these ways at an even speed: (steps + 1, N, 2)."""
    return start + torch.arange(steps + 1.0)[:, None, None] * torch.tensor(directions)


@pytest.fixture
def walk():
    generator = torch.Generator().manual_seed(3)
    return 30 + torch.randn(13, 9, 2, generator=generator).cumsum(0)


def test_a_video_is_true_to_itself(walk):
    assert motion_fidelity(tracks(walk), tracks(walk)) == pytest.approx(1, abs=1e-6)
    rested = torch.cat([walk, torch.full((13, 4, 2), 5.0)], dim=1)
    assert motion_fidelity(tracks(rested), tracks(rested)) == pytest.approx(1, abs=1e-6)


def test_places_sizes_speeds_and_the_order_of_points_do_not_count(walk):
    same = motion_fidelity(tracks(walk), tracks((walk * 2.5 - 40)[:, torch.randperm(9)]))
    assert same == pytest.approx(1, abs=1e-6)
    assert motion_fidelity(tracks(going((1, 0))), tracks(going((3, 0), start=50))) == pytest.approx(1)


def test_the_known_value_of_a_reversed_video():
    # Played backwards, a point that goes right goes left: -1; one that goes out and back is as before.
    assert motion_fidelity(tracks(going((1, 0))), tracks(going((1, 0)).flip(0))) == pytest.approx(-1)
    out_and_back = torch.cat([going((1, 0), steps=4), going((1, 0), steps=4).flip(0)[1:]])
    assert motion_fidelity(tracks(out_and_back), tracks(out_and_back.flip(0))) == pytest.approx(1)
    # Up while it goes right: reversed, -1 again; against going up alone, the cosine of 45 degrees.
    assert motion_fidelity(tracks(going((1, -1))), tracks(going((0, -1)))) == pytest.approx(math.sqrt(0.5))


def test_each_point_is_matched_both_ways():
    # By hand: of the reference's two, one finds its like (1) and one nothing better than 0; the result's finds 1.
    one_way = tracks(going((1, 0), (0, 1))), tracks(going((2, 0)))
    assert motion_fidelity(*one_way) == pytest.approx(((1 + 0) / 2 + 1) / 2)
    assert motion_fidelity(*reversed(one_way)) == pytest.approx(((1 + 0) / 2 + 1) / 2)


def test_it_is_the_formula_of_the_paper_halved(walk):
    other = walk[:, :5].flip(1) + torch.randn(13, 5, 2, generator=torch.Generator().manual_seed(4))

    def correlation(first, second):
        total = 0.0
        for step in range(12):
            (ax, ay), (bx, by) = (path[step + 1] - path[step] for path in (first, second))
            total += (ax * bx + ay * by) / (math.hypot(ax, ay) * math.hypot(bx, by))
        return float(total / 12)

    of_reference = [max(correlation(walk[:, n], other[:, m]) for m in range(5)) for n in range(9)]
    of_result = [max(correlation(walk[:, n], other[:, m]) for n in range(9)) for m in range(5)]
    expected = sum(of_reference) / 9 + sum(of_result) / 5
    assert 2 * motion_fidelity(tracks(walk), tracks(other), still=0) == pytest.approx(expected, abs=1e-5)


def test_points_at_rest_agree_with_each_other_alone():
    still, moving = tracks(going((0, 0))), tracks(going((1, 0)))
    assert motion_fidelity(still, still) == 1
    assert motion_fidelity(still, moving) == 0
    # Under 0.07 % of the diagonal, 0.063 of these 64 pixels, is rest.
    assert motion_fidelity(still, tracks(going((0.06, 0)))) == 1
    assert motion_fidelity(still, tracks(going((0.07, 0)))) == 0


def test_a_background_at_rest_hides_no_subject_from_the_measure_of_what_moves():
    scene, nothing = tracks(going((1, 0), *[(0, 0)] * 9)), tracks(going(*[(0, 0)] * 10))
    assert motion_fidelity(scene, nothing) == pytest.approx((0.9 + 1) / 2)
    assert moving_fidelity(scene, nothing) == 0
    assert moving_fidelity(scene, scene) == moving_fidelity(nothing, nothing) == 1


def test_points_that_are_not_seen_do_not_count():
    paths = going((1, 0), (0, 1))
    seen = torch.ones(9, 2, dtype=torch.bool)
    seen[3:, 1] = False
    assert motion_fidelity(tracks(going((1, 0))), tracks(paths, seen)) == pytest.approx(1)
    with pytest.raises(ShapeError, match="no point is seen"):
        motion_fidelity(tracks(paths), tracks(paths, torch.zeros(9, 2, dtype=torch.bool)))


def test_many_points_are_compared_in_parts_with_the_same_result(monkeypatch, walk):
    from flexiact_core.metrics import motion

    whole = motion_fidelity(tracks(walk), tracks(walk[:, :4].flip(0)))
    monkeypatch.setattr(motion, "ROWS_AT_ONCE", 2)
    assert motion_fidelity(tracks(walk), tracks(walk[:, :4].flip(0))) == pytest.approx(whole, abs=1e-6)


def test_videos_of_other_lengths_are_refused():
    with pytest.raises(ShapeError, match="9 frames in the reference, 5 in the result"):
        motion_fidelity(tracks(going((1, 0))), tracks(going((1, 0), steps=4)))


def test_the_right_action_comes_first_for_true_videos_of_held_out_targets():
    """Each true video against the reference clips of all eleven actions: another subject, place and pattern."""
    pytest.importorskip("cv2", reason="points are followed by OpenCV: pip install opencv-python-headless")
    from flexiact_core.world.actions import ACTIONS
    from flexiact_core.world.render import render_clip
    from flexiact_core.world.scenes import sample_target
    from flexiact_core.world.shipped import REFERENCE

    def tracked(scene, action):
        return track_points(torch.from_numpy(render_clip(scene, action).frames))

    references = {action: tracked(REFERENCE, action) for action in ACTIONS}
    nearest = {}
    for action in ACTIONS:
        for target in range(4):
            result = tracked(sample_target(target, REFERENCE), action)
            scores = {name: motion_fidelity(reference, result) for name, reference in references.items()}
            nearest[action, target] = max(scores, key=scores.__getitem__)
    # The points of a turning square say little of its turn.
    turns = [(action, target) for action, target in nearest if action in ("spin", "roll")]
    assert all(name == case[0] for case, name in nearest.items() if case not in turns)
    assert sum(name == case[0] for case, name in nearest.items()) >= 0.8 * len(nearest)
