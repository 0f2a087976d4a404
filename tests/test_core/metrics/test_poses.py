"""Distances of poses and of sets of them, against numbers by hand and a second formulation."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from flexiact_core.errors import ShapeError
from flexiact_core.metrics.poses import correct_keypoints, diversity, frechet_distance, pose_errors


def test_an_error_is_the_mean_distance_of_a_joint_in_pixels():
    true = torch.zeros(2, 3, 4)
    made = true.clone()
    # One of two joints is 3 right and 4 down of where it should be, in 1/64: 5 pixels of 128, 2.5 on the mean.
    made[1, :, 0], made[1, :, 1] = 3 / 64, 4 / 64
    assert_close(pose_errors(made, true), torch.tensor([0.0, 2.5]))
    assert_close(pose_errors(made, true, side_px=256), torch.tensor([0.0, 5.0]))


def test_poses_of_other_lengths_are_refused():
    with pytest.raises(ShapeError, match=r"\(3, 4\) expected, \(2, 4\) found"):
        pose_errors(torch.zeros(1, 2, 4), torch.zeros(1, 3, 4))


def test_diversity_is_the_mean_distance_of_two_variants():
    made = torch.zeros(3, 1, 1, 2)
    made[1, ..., 0], made[2, ..., 0] = 1 / 64, 2 / 64
    assert diversity(made) == pytest.approx((1 + 2 + 1) / 3)
    assert diversity(made[:1]) == 0.0


def test_the_distance_of_two_normal_sets_is_that_of_the_formula():
    from scipy.linalg import sqrtm

    generator = torch.Generator().manual_seed(0)
    first = torch.randn(400, 6, generator=generator) @ torch.randn(6, 6, generator=generator)
    second = torch.randn(300, 6, generator=generator) * 0.5 + 1
    spread_1, spread_2 = (part.double().T.cov().numpy() for part in (first, second))
    expected = (first.double().mean(0) - second.double().mean(0)).square().sum().item()
    expected += spread_1.trace() + spread_2.trace() - 2 * sqrtm(spread_1 @ spread_2).real.trace()
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(first, first + 2) == pytest.approx(6 * 4)


def test_fewer_samples_than_features_are_measured_too():
    few = torch.randn(5, 20, generator=torch.Generator().manual_seed(1))
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-6)
    with pytest.raises(ShapeError, match="at least 2 samples"):
        frechet_distance(few[:1], few)


def test_joints_within_the_distance_are_counted():
    true = torch.zeros(2, 2, 2)
    made = torch.tensor([[[3.0, 4.0], [0.0, 5.1]], [[0.0, 0.0], [float("nan"), 0.0]]])
    assert correct_keypoints(made, true, within=5) == pytest.approx(2 / 4)
    seen = torch.tensor([[True, False], [True, True]])
    assert correct_keypoints(made, true, within=5, seen=seen) == pytest.approx(2 / 3)
    assert math.isnan(correct_keypoints(made, true, 5, torch.zeros(2, 2, dtype=torch.bool)))
    with pytest.raises(ShapeError, match="expected"):
        correct_keypoints(made, true[:1], 5)
