"""Means with intervals, and differences of pairs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def interval(records: Sequence[dict], value: str, num_draws: int = 2000) -> tuple[float, float, float]:
    """Mean and 95 % interval of a value, bootstrapped over targets; seeds of a target stay together."""
    by_target: dict[tuple, list[float]] = {}
    for record in records:
        by_target.setdefault((record["action"], record["target"]), []).append(record[value])
    means = np.array([np.mean(values) for values in by_target.values()])
    rng = np.random.default_rng(0)
    draws = means[rng.integers(len(means), size=(num_draws, len(means)))].mean(1)
    return float(means.mean()), float(np.quantile(draws, 0.025)), float(np.quantile(draws, 0.975))


def pair_differences(
    records: Sequence[dict], others: Sequence[dict], actions: Sequence[str], values: Sequence[str]
) -> list[dict]:
    """The difference in each of `values`, for the cases of some actions that two rows have in common."""
    by_case = {(other["action"], other["target"], other["seed"]): other for other in others}
    pairs = []
    for record in records:
        other = by_case.get((record["action"], record["target"], record["seed"]))
        if other is not None and record["action"] in actions:
            pairs.append(record | {value: record[value] - other[value] for value in values})
    return pairs
