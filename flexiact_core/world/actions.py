"""The actions of the small world: what a sprite and the camera do over a clip.

An action is a function of time, from 0 at the first frame to 1 at the last.
Lengths are in pixels of the 64x64 frame, angles in degrees, clockwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

NUM_FRAMES = 17

JUMP_PX = 14.0
SLIDE_PX = 14.0
DROP_PX = 13.0
SWAY_PX = 11.0
GROW_FACTOR = 1.5
SHRINK_FACTOR = 0.58
SPIN_DEG = 180.0
PAN_PX = 12.0
ZOOM_FACTOR = 1.5
# As long a subject takes from a pose of its own into the pose that an action begins with.
FADE_FRAMES = 6


@dataclass(frozen=True)
class Motion:
    """What changes against the first frame, per frame; every field has shape (T,).

    dx, dy: displacement of the sprite in the world, px, y down.
    scale: factor on the sprite's size. angle: degrees, clockwise.
    pan: how far the camera moved to the right, px. zoom: camera zoom about the centre.
    """

    dx: np.ndarray
    dy: np.ndarray
    scale: np.ndarray
    angle: np.ndarray
    pan: np.ndarray
    zoom: np.ndarray


@dataclass(frozen=True)
class Action:
    """An action by name, with the word a caption uses for it and whether the base saw it."""

    name: str
    verb: str
    seen: bool
    parts: tuple[str, ...]
    about: str


def _settle(time: np.ndarray) -> np.ndarray:
    """A move from 0 to 1 that starts and ends at rest."""
    return 0.5 - 0.5 * np.cos(math.pi * time)


# Each part moves one quantity: the name of the field and its value over time.
_PARTS: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]] = {
    "jump": ("dy", lambda t: -JUMP_PX * np.sin(math.pi * t)),
    "slide": ("dx", lambda t: SLIDE_PX * _settle(t)),
    "drop": ("dy", lambda t: DROP_PX * _settle(t)),
    "sway": ("dx", lambda t: SWAY_PX * np.sin(2 * math.pi * t)),
    "grow": ("scale", lambda t: GROW_FACTOR ** _settle(t)),
    "shrink": ("scale", lambda t: SHRINK_FACTOR ** _settle(t)),
    "spin": ("angle", lambda t: SPIN_DEG * _settle(t)),
    "pan": ("pan", lambda t: PAN_PX * _settle(t)),
    "zoom": ("zoom", lambda t: ZOOM_FACTOR ** _settle(t)),
}

ACTIONS: dict[str, Action] = {
    action.name: action
    for action in (
        Action("jump", "jumps", True, ("jump",), "up and back down"),
        Action("slide", "slides", True, ("slide",), "to the right, and stays"),
        Action("drop", "drops", True, ("drop",), "down, and stays"),
        Action("sway", "sways", True, ("sway",), "right, left and back"),
        Action("grow", "grows", True, ("grow",), "half as large again"),
        Action("shrink", "shrinks", True, ("shrink",), "to about half the size"),
        Action("spin", "spins", True, ("spin",), "half a turn clockwise"),
        Action("pan", "pans", True, ("pan",), "the camera moves right"),
        Action("zoom", "zooms", True, ("zoom",), "the camera zooms in"),
        Action("hop", "hops", False, ("jump", "slide"), "an arc to the right; never in the base's data"),
        Action("roll", "rolls", False, ("slide", "spin"), "turns while moving right; never in the base's data"),
    )
}

SEEN_ACTIONS = tuple(name for name, action in ACTIONS.items() if action.seen)
UNSEEN_ACTIONS = tuple(name for name, action in ACTIONS.items() if not action.seen)


def compose(parts: tuple[str, ...], num_frames: int = NUM_FRAMES) -> Motion:
    """The Motion of several parts at once, fields of shape (num_frames,).

    Raises KeyError for an unknown part and ValueError if two parts move the same quantity.
    """
    time = np.linspace(0.0, 1.0, num_frames)
    fields = {name: np.zeros(num_frames) for name in ("dx", "dy", "angle", "pan")}
    fields |= {name: np.ones(num_frames) for name in ("scale", "zoom")}
    moved = [_PARTS[part][0] for part in parts]
    if len(set(moved)) < len(moved):
        raise ValueError(f"{' and '.join(parts)} move the same quantity and cannot be done at once.")
    for part in parts:
        field, value = _PARTS[part]
        fields[field] = value(time)
    return Motion(**fields)


def motion_of(action: str | None, num_frames: int = NUM_FRAMES) -> Motion:
    """The Motion of a named action, or of none at all for None. Raises KeyError for other names."""
    return compose(ACTIONS[action].parts if action is not None else (), num_frames)


def from_pose(motion: Motion, angle: float) -> Motion:
    """`motion` of a subject that is turned by `angle` degrees at first and upright after FADE_FRAMES frames."""
    faded = _settle(np.minimum(np.arange(len(motion.angle)) / FADE_FRAMES, 1.0))
    return replace(motion, angle=motion.angle - angle * faded)


def medleys() -> tuple[tuple[str, ...], ...]:
    """All pairs of parts that the base's data may mix: no unseen action is among them.

    Mixed motions without a name teach the base that motions add up, which is what
    an action it never saw asks of it.
    """
    withheld = {frozenset(ACTIONS[name].parts) for name in UNSEEN_ACTIONS}
    names = list(_PARTS)
    pairs = []
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            same = _PARTS[first][0] == _PARTS[second][0]
            if not same and frozenset((first, second)) not in withheld:
                pairs.append((first, second))
    return tuple(pairs)


# What is hardest to learn is shown more often: a zoom is easily taken for growth, a turn hardly moves an outline.
SHOWN_MORE = {"zoom": 2.0, "spin": 1.5}


def sample_motion(rng: np.random.Generator, medley_share: float, still_share: float = 0.0) -> tuple[Motion, str | None]:
    """A random Motion that training may show, and the name of its action or None."""
    draw = rng.uniform()
    if draw < still_share:
        return motion_of(None), None
    if draw < still_share + medley_share:
        pairs = medleys()
        return compose(pairs[rng.integers(len(pairs))]), None
    shares = np.array([SHOWN_MORE.get(name, 1.0) for name in SEEN_ACTIONS])
    name = SEEN_ACTIONS[rng.choice(len(SEEN_ACTIONS), p=shares / shares.sum())]
    return motion_of(name), name
