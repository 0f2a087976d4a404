"""Checks of numbers that come from outside: widgets, links between nodes, rows of lists, command lines."""

from __future__ import annotations

import math

from .errors import SettingError


def check_number(name: str, value: float, low: float = -math.inf, high: float = math.inf) -> float:
    """`value` as a float, if it is a finite number in low..high, both ends included.

    `name` is what the message calls it. Raises SettingError for anything else: NaN passes comparisons of ranges, and
    values that come through a link were compared with nothing.
    """
    number = _to_float(value)
    if math.isfinite(number) and low <= number <= high:
        return number
    ends = [f"{words} {end:g}" for words, end in (("at least", low), ("at most", high)) if math.isfinite(end)]
    limits = f" of {' and '.join(ends)}" if ends else ""
    shown = value if isinstance(value, int | float) else type(value).__name__
    raise SettingError(f"{name} {shown}: a number{limits} is needed.")


def check_numbers(**values: float) -> None:
    """Passes if all values are finite numbers. Raises SettingError naming the first that is not."""
    for name, value in values.items():
        check_number(name, value)


def _to_float(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf
