"""Scenes of the small world: who stands where before what, and the words for it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .actions import ACTIONS, PAN_PX

FRAME_PX = 64

SHAPES = ("circle", "square", "triangle", "cross")

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.86, 0.22, 0.20),
    "orange": (0.95, 0.56, 0.16),
    "yellow": (0.95, 0.86, 0.25),
    "green": (0.24, 0.66, 0.28),
    "cyan": (0.25, 0.78, 0.84),
    "blue": (0.22, 0.36, 0.86),
    "purple": (0.58, 0.28, 0.78),
    "white": (0.95, 0.95, 0.95),
}

TONES: dict[str, tuple[float, float, float]] = {
    "gray": (0.52, 0.52, 0.54),
    "sand": (0.72, 0.63, 0.50),
    "sky": (0.56, 0.67, 0.78),
    "moss": (0.47, 0.54, 0.40),
    "rose": (0.76, 0.58, 0.60),
    "slate": (0.33, 0.38, 0.46),
}

PATTERNS = ("striped", "dotted", "checkered")
NUM_STONES = 6

# Each shape and each colour lacks from training only in these pairs, so a target
# made of them is new while all of its words are known.
HELD_OUT_PAIRS = (
    ("circle", "red"),
    ("circle", "cyan"),
    ("square", "orange"),
    ("square", "blue"),
    ("triangle", "yellow"),
    ("triangle", "purple"),
    ("cross", "green"),
    ("cross", "white"),
)

TRAINED_PAIRS = tuple((s, c) for s in SHAPES for c in COLOURS if (s, c) not in HELD_OUT_PAIRS)


@dataclass(frozen=True)
class Scene:
    """A sprite on a background, as it stands in the first frame.

    x, y: centre, px. radius: px. angle: degrees, clockwise, 0 is upright.
    pattern_px: period of the background pattern; phase_x, phase_y: its place, in turns.
    stones: landmarks of the background, each (x, y, radius, lightness), px and -1 (dark) or 1 (light). Without them
    a zoom of so slow a pattern hardly shows.
    mixed: the sprite's colour, RGB in 0..1, where it is none that has a name; captions then say none.
    """

    shape: str
    colour: str
    radius: float
    x: float
    y: float
    tone: str
    pattern: str
    pattern_px: float
    phase_x: float
    phase_y: float
    angle: float = 0.0
    stones: tuple[tuple[float, float, float, float], ...] = ()
    mixed: tuple[float, float, float] | None = None

    @property
    def rgb(self) -> tuple[float, float, float]:
        """The colour of the sprite's lit half, 0..1."""
        return self.mixed or COLOURS[self.colour]


def sample_scene(seed: int, pairs: tuple[tuple[str, str], ...] = TRAINED_PAIRS) -> Scene:
    """A random Scene, the same for the same seed: upright, not far from the centre."""
    rng = np.random.default_rng(seed)
    shape, colour = pairs[rng.integers(len(pairs))]
    # The shaded half of a white sprite is gray and would vanish before gray.
    tones = [tone for tone in TONES if (colour, tone) != ("white", "gray")]
    return Scene(
        shape=shape,
        colour=colour,
        radius=float(rng.uniform(11.0, 14.0)),
        x=float(rng.uniform(25.0, 37.0)),
        y=float(rng.uniform(27.0, 37.0)),
        tone=tones[rng.integers(len(tones))],
        pattern=PATTERNS[rng.integers(len(PATTERNS))],
        pattern_px=float(rng.uniform(42.0, 56.0)),
        phase_x=float(rng.uniform(0.0, 1.0)),
        phase_y=float(rng.uniform(0.0, 1.0)),
        stones=_sample_stones(rng),
    )


def _sample_stones(rng: np.random.Generator) -> tuple[tuple[float, float, float, float], ...]:
    # As far to the right as a pan looks.
    return tuple(
        (
            float(rng.uniform(0.0, FRAME_PX + PAN_PX)),
            float(rng.uniform(0.0, FRAME_PX)),
            float(rng.uniform(4.5, 7.5)),
            1.0 if rng.integers(2) else -1.0,
        )
        for _ in range(NUM_STONES)
    )


def sample_target(seed: int, reference: Scene) -> Scene:
    """A random Scene that shares nothing with `reference`: the subject of a transfer.

    Shape, colour, tone and pattern differ, the shape-colour pair is held out of all
    training, the size differs by at least 1 px and the place by at least 5 px.
    """
    pairs = tuple(p for p in HELD_OUT_PAIRS if p[0] != reference.shape and p[1] != reference.colour)
    rng = np.random.default_rng([seed, 1])
    while True:
        scene = sample_scene(int(rng.integers(2**31)), pairs)
        far = np.hypot(scene.x - reference.x, scene.y - reference.y) >= 5.0
        other_size = abs(scene.radius - reference.radius) >= 1.0
        if far and other_size and scene.tone != reference.tone and scene.pattern != reference.pattern:
            return scene


def sample_far_target(seed: int, reference: Scene) -> Scene:
    """Like `sample_target`, where the base never started from: at the far side of the frame, or of another size."""
    scene = sample_target(seed, reference)
    rng = np.random.default_rng([seed, 2])
    side = 1.0 if rng.integers(2) else -1.0
    if seed % 2:
        return replace(scene, x=32.0 + side * 13.0, y=32.0 + float(rng.uniform(-9.0, 9.0)))
    return replace(scene, radius=float(rng.uniform(8.5, 9.5) if side < 0 else rng.uniform(16.0, 17.5)))


def sample_posed_target(seed: int, reference: Scene) -> Scene:
    """Like `sample_target`, in a pose that no clip begins with: turned by 50 to 130 degrees to either side."""
    scene = sample_target(seed, reference)
    rng = np.random.default_rng([seed, 3])
    return replace(scene, angle=(1.0 if rng.integers(2) else -1.0) * float(rng.uniform(50.0, 130.0)))


def caption(scene: Scene, action: str | None = None) -> str:
    """What a caption says of `scene`, with the word for `action` if one is given."""
    verb = f" {ACTIONS[action].verb}" if action is not None else ""
    colour = "" if scene.mixed else f" {scene.colour}"
    return f"a{colour} {scene.shape}{verb} on a {scene.pattern} {scene.tone} background"


def vocabulary() -> tuple[str, ...]:
    """All words of all captions of actions the base saw, each once, in a fixed order."""
    verbs = tuple(action.verb for action in ACTIONS.values() if action.seen)
    return ("a", "on", "background") + SHAPES + tuple(COLOURS) + tuple(TONES) + PATTERNS + verbs


def in_any_pose(scene: Scene, rng: np.random.Generator) -> Scene:
    """`scene` turned, moved and resized at random, as no clip of the base's training starts."""
    return replace(
        scene,
        radius=float(rng.uniform(8.0, 17.5)),
        x=float(rng.uniform(18.0, 46.0)),
        y=float(rng.uniform(18.0, 46.0)),
        angle=float(rng.uniform(-180.0, 180.0)),
    )


def in_any_colour(scene: Scene, rng: np.random.Generator) -> Scene:
    """`scene` in a colour between two of COLOURS, not near its background's or one that its shape is held out in.

    From eight colours alone a model learns each shape in each by heart, and not that any shape may have any.
    """
    named = np.asarray(list(COLOURS.values()))
    avoided = [COLOURS[colour] for shape, colour in HELD_OUT_PAIRS if shape == scene.shape] + [TONES[scene.tone]]
    while True:
        one, other = rng.choice(len(named), 2, replace=False)
        mixed = named[one] + rng.uniform(0.2, 0.8) * (named[other] - named[one])
        if min(np.linalg.norm(mixed - colour) for colour in avoided) > 0.25:
            return replace(scene, mixed=tuple(float(channel) for channel in mixed))
