"""Stretches of time."""

from __future__ import annotations


def in_words(seconds: float) -> str:
    """A stretch of time as people say it: 40 s, 3 min 20 s, 12 min, 2 h 5 min."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    minutes = seconds // 60
    if minutes < 10:
        return f"{minutes} min {seconds % 60} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
