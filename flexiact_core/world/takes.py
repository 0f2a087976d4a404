"""People filmed twice by the same camera: as gray puppets on black, and dressed, in a scene that has a name.

The first is what AMG takes as its avatar, the second what it makes of it and of a caption.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..act_vae.figures import ACTIONS, joints_of, postures_of
from .actor_render import FLOOR_RISE_PX, FLOOR_SHADE, PARTS, colours_of, cover_of_parts, floor_below, paint
from .actors import SHIRTS, SKINS, TRAINED_CLOTHES, TROUSERS, Actor, sample_actor, sample_performance, settle

TAKE_FRAMES, TAKE_FPS = 8, 8
# Where the camera looks when it does not pan, px; it zooms about that place.
CENTRE_X, CENTRE_Y = 32.0, 38.0

SCENES: dict[str, tuple[float, float, float]] = {
    "sky": (0.58, 0.76, 0.93),
    "sand": (0.90, 0.82, 0.46),
    "meadow": (0.46, 0.68, 0.38),
    "brick": (0.72, 0.40, 0.33),
    "stone": (0.55, 0.55, 0.57),
}
SHOES = (0.16, 0.13, 0.12)
GRAY = 0.8

# By name: where the camera's pan (px to the right), zoom and turn (radians about the person) begin and end.
Ends = tuple[float, float]
CAMERAS: dict[str, tuple[Ends, Ends, Ends]] = {
    "right": ((-10.0, 10.0), (1.0, 1.0), (0.0, 0.0)),
    "left": ((10.0, -10.0), (1.0, 1.0), (0.0, 0.0)),
    "in": ((0.0, 0.0), (0.8, 1.25), (0.0, 0.0)),
    "out": ((0.0, 0.0), (1.25, 0.8), (0.0, 0.0)),
    "around": ((0.0, 0.0), (1.0, 1.0), (-0.8, 0.8)),
}
_RANGES: tuple[Ends, Ends, Ends] = ((-11.0, 11.0), (0.78, 1.28), (-0.9, 0.9))


@dataclass(frozen=True, eq=False)
class Shot:
    """What happens in a take: postures (T, D) in the units of figures.FREEDOMS; the camera's pan, px to the right,
    its zoom, and how far it has gone around the person, radians; each (T,)."""

    postures: Tensor
    pan: Tensor
    zoom: Tensor
    turn: Tensor


@dataclass(frozen=True, eq=False)
class Take:
    """Who is filmed, doing what before which camera, and the name of the scene, one of SCENES."""

    actor: Actor
    shot: Shot
    scene: str


def sample_take(seed: int, clothes: tuple[tuple[str, str], ...] = TRAINED_CLOTHES) -> Take:
    """A random Take, the same for the same seed."""
    rng = np.random.default_rng([seed, 83])
    actor = sample_actor(int(rng.integers(2**31)), clothes)
    postures = sample_performance(rng)[0].postures
    first = int(rng.integers(len(postures) - 2 * TAKE_FRAMES + 2))
    ends = []
    for low, high in _RANGES:
        begin, end = rng.uniform(low, high, 2)
        ends.append((begin, begin if rng.uniform() < 0.3 else end))
    shot = Shot(postures[first : first + 2 * TAKE_FRAMES - 1 : 2], *(_between(*pair) for pair in ends))
    return Take(actor, shot, list(SCENES)[rng.integers(len(SCENES))])


def film(action: str, camera: str) -> Shot:
    """The Shot of a named action of figures.ACTIONS by one of CAMERAS. Raises KeyError for other names."""
    if action not in ACTIONS:
        raise KeyError(action)
    postures = postures_of(action, 0.7 * torch.linspace(0, 1, TAKE_FRAMES))
    return Shot(postures, *(_between(*pair) for pair in CAMERAS[camera]))


def by_camera(take: Take, camera: str) -> Take:
    """The same take by another of CAMERAS. Raises KeyError for other names."""
    pan, zoom, turn = (_between(*pair) for pair in CAMERAS[camera])
    return replace(take, shot=replace(take.shot, pan=pan, zoom=zoom, turn=turn))


def moments_of(take: Take, moments: Sequence[int]) -> Take:
    """The take's frames of these numbers alone."""
    shot, chosen = take.shot, list(moments)
    return replace(take, shot=Shot(*(value[chosen] for value in (shot.postures, shot.pan, shot.zoom, shot.turn))))


def _between(begin: float, end: float) -> Tensor:
    return begin + (end - begin) * settle(TAKE_FRAMES)


def seen_joints(take: Take) -> Tensor:
    """Where the joints figures.JOINTS are on the screen: (T, 13, 3) in px, x to the right, y down, z to the viewer."""
    actor, shot = take.actor, take.shot
    x, y, z = joints_of(shot.postures, dict(actor.body)).unbind(-1)
    angle = (actor.turn + shot.turn)[:, None]
    across, depth = x * angle.cos() + z * angle.sin(), z * angle.cos() - x * angle.sin()
    zoom = shot.zoom[:, None]
    right = CENTRE_X + (actor.x - CENTRE_X - shot.pan[:, None] + actor.height * across) * zoom
    down = CENTRE_Y + (actor.ground - CENTRE_Y - actor.height * y) * zoom
    return torch.stack([right, down, actor.height * depth * zoom], -1)


def cover(take: Take) -> Tensor:
    """How much of each pixel each of PARTS is seen to cover: (T, P, 64, 64) in 0..1."""
    return cover_of_parts(seen_joints(take), take.shot.zoom)


def take_mask(take: Take) -> Tensor:
    """Where the person is: bool (T, 64, 64)."""
    return cover(take).sum(1) > 0.5


def render_avatar(take: Take) -> Tensor:
    """The gray puppet on black: (T, 64, 64, 3) float32 in 0..1."""
    light = torch.tensor([part[4] for part in PARTS])
    return (GRAY * torch.einsum("tphw,p->thw", cover(take), light))[..., None].expand(-1, -1, -1, 3)


def render_take(take: Take) -> Tensor:
    """The dressed person in the scene: (T, 64, 64, 3) float32 in 0..1."""
    return paint(_ground(take), cover(take), dress(take.actor))


def dress(actor: Actor) -> Tensor:
    """The colour of each of PARTS, (P, 3) in 0..1; hands are bare, shoes dark."""
    skin = SKINS[actor.skin]
    return colours_of(actor, {"left_wrist": skin, "right_wrist": skin, "left_ankle": SHOES, "right_ankle": SHOES})


def _ground(take: Take) -> Tensor:
    edge = CENTRE_Y + (take.actor.ground - FLOOR_RISE_PX - CENTRE_Y) * take.shot.zoom
    return torch.tensor(SCENES[take.scene]) * (1 - (1 - FLOOR_SHADE) * floor_below(edge[:, None]))[..., None, None]


def take_caption(take: Take, scene: str | None = None) -> str:
    """What a caption says of a take; with another scene's name, if one is given."""
    actor = take.actor
    return f"a {actor.skin} person in {actor.shirt} and {actor.trousers} before {scene or take.scene}"


def take_vocabulary() -> tuple[str, ...]:
    """All words of all captions, each once, in a fixed order."""
    return ("a", "person", "in", "and", "before", *SKINS, *SHIRTS, *TROUSERS, *SCENES)
