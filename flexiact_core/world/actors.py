"""People of the small world: who they are, what they and the camera do over a clip, and the words for it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..act_vae.figures import ACTIONS, draw_body, postures_of
from ..cogvideox.family import DYNAMICTRL
from ..poses.sequence import PoseSequence
from ..poses.skeletons import PENN13
from .bodies import KINDS, PERSON, joints_of_kind

FRAME_PX = 64
NUM_FRAMES = 21
FPS = DYNAMICTRL.fps
PAN_PX = 14.0
# The share of an action's course that a clip shows: what sets it apart, at a pace that a small VAE follows.
TEMPO = 0.6

SHIRTS: dict[str, tuple[float, float, float]] = {
    "white": (0.93, 0.93, 0.92),
    "navy": (0.15, 0.19, 0.43),
    "green": (0.20, 0.52, 0.26),
    "purple": (0.46, 0.26, 0.66),
}
TROUSERS: dict[str, tuple[float, float, float]] = {
    "black": (0.11, 0.11, 0.13),
    "denim": (0.29, 0.43, 0.68),
    "olive": (0.46, 0.44, 0.20),
}
SKINS: dict[str, tuple[float, float, float]] = {
    "light": (0.95, 0.78, 0.66),
    "tan": (0.82, 0.60, 0.44),
    "brown": (0.50, 0.32, 0.22),
}
TONES: dict[str, tuple[float, float, float]] = {
    "gray": (0.55, 0.55, 0.57),
    "sky": (0.56, 0.67, 0.78),
    "moss": (0.47, 0.55, 0.42),
    "slate": (0.35, 0.40, 0.48),
}
# Gloves and shoes of colours that nothing else has: by them hands and feet are found in a video.
MARKERS: dict[str, tuple[float, float, float]] = {
    "left_wrist": (0.10, 0.84, 0.90),
    "right_wrist": (0.90, 0.20, 0.74),
    "left_ankle": (0.98, 0.88, 0.14),
    "right_ankle": (0.88, 0.12, 0.12),
}

VERBS: dict[str, str] = {
    "walk": "walks", "jumping_jacks": "jumps", "squat": "squats", "kick": "kicks", "punch": "punches",
    "wave": "waves", "bow": "bows", "lunge": "lunges", "throw": "throws",
}  # fmt: skip
CAMERAS: dict[str, float] = {"right": 1.0, "left": -1.0}

HELD_OUT_CLOTHES = (("white", "denim"), ("navy", "olive"), ("green", "black"), ("purple", "olive"))
# Seeds from here on are of people that no training draws.
FIRST_HELD_OUT = 5_000_000
TRAINED_CLOTHES = tuple((s, t) for s in SHIRTS for t in TROUSERS if (s, t) not in HELD_OUT_CLOTHES)


@dataclass(frozen=True)
class Actor:
    """A person, or one of another kind of bodies.KINDS, before a background, as the first frame shows them.

    body: lengths of the parts in shares of the height; height: px of that height. x, ground: where the hips and the
    soles are, px. turn: radians to the person's left, 0 is seen from the front. waves: of the background, rows of
    turns a px in x and y, and a phase in turns.
    """

    shirt: str
    trousers: str
    skin: str
    body: tuple[tuple[str, float], ...]
    height: float
    x: float
    ground: float
    turn: float
    tone: str
    waves: tuple[tuple[float, float, float], ...]
    kind: str = PERSON


@dataclass(frozen=True, eq=False)
class Performance:
    """What happens in a clip: postures (T, D) in the units of figures.FREEDOMS, and how far the camera has moved to
    the right, px, (T,), the person with it."""

    postures: Tensor
    pan: Tensor


def sample_actor(
    seed: int, clothes: tuple[tuple[str, str], ...] = TRAINED_CLOTHES, kind: str = PERSON
) -> Actor:  # fmt: skip
    """A random Actor of one of bodies.KINDS, the same for the same seed."""
    rng = np.random.default_rng([seed, 5])
    shirt, trousers = clothes[rng.integers(len(clothes))]
    body = draw_body(torch.Generator().manual_seed(int(rng.integers(2**31))))
    waves = []
    for _ in range(3):
        angle, period = rng.uniform(-0.9, 0.9), rng.uniform(26.0, 52.0)
        waves.append((np.cos(angle) / period, np.sin(angle) / period, rng.uniform()))
    actor = Actor(
        shirt=shirt,
        trousers=trousers,
        skin=list(SKINS)[rng.integers(len(SKINS))],
        body=tuple(body.items()),
        height=float(rng.uniform(39.0, 43.0)),
        x=float(rng.uniform(27.0, 37.0)),
        ground=float(rng.uniform(57.5, 59.5)),
        turn=float(rng.uniform(-0.6, 0.6)),
        tone=list(TONES)[rng.integers(len(TONES))],
        waves=tuple(tuple(float(value) for value in wave) for wave in waves),
    )
    if kind == PERSON:
        return actor
    look = KINDS[kind]
    return replace(
        actor,
        kind=kind,
        body=tuple((name, float(rng.uniform(*span))) for name, span in look.sizes.items()),
        height=float(rng.uniform(*look.height)),
        # Longer than a person is wide, it has less room to either side.
        x=FRAME_PX / 2 - look.ahead_px + float(rng.uniform(-2.5, 2.5)),
        turn=float(rng.uniform(*look.turn)),
    )


def act_out(
    action: str | None, *, tempo: float = TEMPO, camera: str | None = None, frames: int = NUM_FRAMES
) -> Performance:
    """The Performance of a share `tempo` of an action's course, from the stance on; None stands still.

    camera: right or left, where it moves by PAN_PX over the clip, or None.
    """
    course = torch.linspace(0, 1, frames) * tempo
    postures = postures_of(action or "walk", course if action else torch.zeros(frames))
    return Performance(postures, pan_of(camera, frames))


def other_action(action: str) -> str:
    """Another of figures.ACTIONS: some places further on in the list."""
    names = list(ACTIONS)
    return names[(names.index(action) + 4) % len(names)]


def settle(frames: int) -> Tensor:
    """A course (T,) from 0 to 1 that begins and ends at rest."""
    return 0.5 - 0.5 * torch.cos(torch.pi * torch.linspace(0, 1, frames))


def pan_of(camera: str | None, frames: int = NUM_FRAMES) -> Tensor:
    """How far the camera has moved to the right in each frame, px (T,)."""
    return settle(frames) * PAN_PX * (CAMERAS[camera] if camera else 0.0)


def joints_px(actor: Actor, performance: Performance) -> Tensor:
    """Where the joints figures.JOINTS are on the screen: (T, 13, 3) in px, x to the right, y down, z to the viewer."""
    x, y, z = joints_of_kind(actor.kind, performance.postures, dict(actor.body)).unbind(-1)
    cos, sin = np.cos(actor.turn), np.sin(actor.turn)
    across, depth = x * cos + z * sin, z * cos - x * sin
    return torch.stack([actor.x + actor.height * across, actor.ground - actor.height * y, actor.height * depth], -1)


def poses_of(actor: Actor, performance: Performance) -> PoseSequence:
    """The true poses of a clip, as a detector would give them, on a canvas of the frame's size."""
    points = joints_px(actor, performance)[:, None, :, :2]
    return PoseSequence(points, torch.ones(points.shape[:3]), (FRAME_PX, FRAME_PX), FPS, PENN13)


def sample_performance(rng: np.random.Generator) -> tuple[Performance, str | None, str | None]:
    """A random Performance that training may show, and the names of its action and of its camera, or None each.

    Half are actions; others mix the postures of several, so that poses are followed that no word names.
    """
    camera = list(CAMERAS)[rng.integers(2)] if rng.uniform() < 0.3 else None
    draw, names = rng.uniform(), list(ACTIONS)
    if draw < 0.06:
        return act_out(None, camera=camera), None, camera
    if draw < 0.5:
        action = names[rng.integers(len(names))]
        performance = act_out(action, tempo=TEMPO * float(rng.uniform(0.85, 1.15)))
        shaken = performance.postures + _shake(rng, performance.postures)
        return Performance(shaken, pan_of(camera)), action, camera
    return Performance(_mixed(rng), pan_of(camera)), None, camera


def _shake(rng: np.random.Generator, postures: Tensor) -> Tensor:
    """What sets one body's way apart from another's: a share of each movement."""
    size = torch.from_numpy(rng.uniform(-0.12, 0.12, postures.shape[-1])).float()
    return (postures - postures[:1]) * size


def _mixed(rng: np.random.Generator) -> Tensor:
    """From the stance through postures of random actions, arms and legs of different ones: (NUM_FRAMES, D)."""
    names = list(ACTIONS)
    stance = postures_of("walk", torch.zeros(1))
    keys, times, time = [stance], [0.0], 0.0
    while time < NUM_FRAMES:
        time += rng.uniform(6.0, 11.0)
        upper, lower = (
            postures_of(names[rng.integers(len(names))], torch.tensor([rng.uniform(0.1, 0.9)])) for _ in range(2)
        )
        keys.append(torch.cat([upper[:, :11], lower[:, 11:]], -1) * float(rng.uniform(0.6, 1.05)))
        times.append(time)
    keyed = torch.cat(keys)
    place = np.interp(np.arange(NUM_FRAMES), times, np.arange(len(times)))
    low = torch.from_numpy(place).long().clamp(max=len(times) - 2)
    share = torch.from_numpy(place).float() - low
    eased = (0.5 - 0.5 * torch.cos(torch.pi * share))[:, None]
    return torch.lerp(keyed[low], keyed[low + 1], eased)


def actor_caption(actor: Actor, action: str | None = None, camera: str | None = None) -> str:
    """What a caption says of an actor, with the words for what they and the camera do if those are given."""
    words = [f"a {actor.kind} in", actor.shirt, "and", actor.trousers]
    if action:
        words.append(VERBS[action])
    words += ["before", actor.tone]
    if camera:
        words += ["while the camera pans", camera]
    return " ".join(words)


def actor_vocabulary() -> tuple[str, ...]:
    """All words of all captions, each once, in a fixed order."""
    plain = ("a", PERSON, "in", "and", "before", "while", "the", "camera", "pans")
    named = tuple(SHIRTS) + tuple(TROUSERS) + tuple(TONES) + tuple(VERBS.values()) + tuple(CAMERAS)
    return plain + named + tuple(kind for kind in KINDS if kind != PERSON)
