import pytest

from flexiact_core.metrics.statistics import interval


def record(action, target, value, seed=0):
    values = ("slope", "cosine", "accuracy", "colour", "shape", "background", "right_shape")
    return {"action": action, "target": target, "seed": seed} | {name: value for name in values}


def test_the_interval_treats_the_seeds_of_a_target_as_one():
    few = [record("jump", target, float(target % 2)) for target in range(8)]
    repeated = [record("jump", target, float(target % 2), seed) for target in range(8) for seed in range(50)]
    assert interval(repeated, "slope") == pytest.approx(interval(few, "slope"))


def test_the_interval_holds_the_mean():
    mean, low, high = interval([record("jump", target, target / 10) for target in range(10)], "slope")
    assert low < mean < high
    assert mean == pytest.approx(0.45)
