"""Kinds of bodies: a person, and a dog and a bird that do on their own skeletons what a person does.

All have the joints and the freedoms of `act_vae.figures`. A dog is a body that leans far forward on its arms, a bird
one that leans and whose arms are wings; what a person does from the stance on, they do in the way nearest to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor

from ..act_vae.figures import FREEDOMS, STANCE, joints_of


@dataclass(frozen=True, eq=False)
class Kind:
    """How a kind of body stands, moves and looks.

    rest: its posture where a person is in the stance, in the units of FREEDOMS, 0 where none is given.
    moves: by freedom, the shares of a person's changes of freedoms that change it; what is not in it stays at rest.
    Freedoms of arms and legs are given without a side, for both: each takes from its own side, where none is named.
    sizes: ranges of the lengths of figures.draw_body(), in shares of the height. height, turn: ranges as in
    actors.Actor. thick: how much thicker than a person's its trunk, arms, legs and head are drawn, and its tail and
    snout, which a person has not.
    ahead_px: how far its middle is ahead of its hips.
    """

    rest: Mapping[str, float] = field(default_factory=dict)
    moves: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    sizes: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    height: tuple[float, float] = (39.0, 43.0)
    turn: tuple[float, float] = (-0.6, 0.6)
    thick: tuple[float, float, float, float, float] = (1.0, 1.0, 1.0, 1.0, 0.0)
    ahead_px: float = 0.0


PERSON = "person"
KINDS: dict[str, Kind] = {
    PERSON: Kind(),
    # Seen from its right side: most actions are of the right limbs.
    "dog": Kind(
        rest={"lean": 74, "arm_forward": 76, "arm_aside": 3, "elbow": 4, "leg_forward": 8, "leg_aside": 3, "knee": 18},
        moves={
            # Both arms aside is to rear, and to bow is to go down on the forelegs, which stretch ahead.
            "lean": {"lean": 0.4, "left_arm_aside": -0.13, "right_arm_aside": -0.13},
            "tilt": {"tilt": 1.0}, "rise": {"rise": 1.0},
            "arm_forward": {"arm_forward": 0.7, "arm_aside": 0.5, "lean": 0.85},
            "arm_aside": {"arm_aside": 0.06}, "elbow": {"elbow": 0.5},
            "leg_forward": {"leg_forward": 0.9}, "leg_aside": {"leg_aside": 0.4}, "knee": {"knee": 0.9},
        },
        sizes={
            "neck": (0.25, 0.29), "torso": (0.47, 0.54), "shoulders": (0.06, 0.08), "hips": (0.05, 0.07),
            "upper_arm": (0.25, 0.28), "forearm": (0.25, 0.28), "thigh": (0.20, 0.23), "shank": (0.20, 0.23),
        },
        height=(37.0, 41.0), turn=(0.95, 1.25), thick=(1.15, 1.0, 1.0, 0.85, 1.0), ahead_px=12.0,
    ),
    "bird": Kind(
        rest={"lean": 42, "arm_forward": 10, "arm_aside": 14, "elbow": 16, "leg_forward": 6, "leg_aside": 8, "knee": 20,
        },
        moves={
            "lean": {"lean": 0.6}, "tilt": {"tilt": 1.0}, "rise": {"rise": 1.0},
            "arm_forward": {"arm_forward": 0.7}, "arm_aside": {"arm_aside": 0.75}, "elbow": {"elbow": 0.4},
            "roll": {"roll": 1.0},
            "leg_forward": {"leg_forward": 0.8}, "leg_aside": {"leg_aside": 0.6}, "knee": {"knee": 0.8},
        },
        sizes={
            "neck": (0.21, 0.25), "torso": (0.33, 0.38), "shoulders": (0.10, 0.12), "hips": (0.06, 0.08),
            "upper_arm": (0.20, 0.23), "forearm": (0.20, 0.24), "thigh": (0.14, 0.17), "shank": (0.15, 0.18),
        },
        height=(44.0, 48.0), turn=(0.65, 1.0), thick=(1.45, 1.1, 0.85, 0.9, 1.0), ahead_px=4.0,
    ),
}  # fmt: skip


def joints_of_kind(kind: str, postures: Tensor, body: dict[str, float]) -> Tensor:
    """Where the joints figures.JOINTS of a body of a kind are where a person is in postures (T, D): (T, 13, 3) in
    shares of its height, as of figures.joints_of()."""
    if kind == PERSON:
        return joints_of(postures, body)
    rest, moves = _tables(kind)
    stance = torch.tensor([float(STANCE.get(name, 0)) for name in FREEDOMS])
    joints = joints_of(rest + (postures - stance) @ moves.T, body)
    # Forelegs stand on the ground, too, and never in it.
    joints[..., 1] += (-joints[..., 1].amin(-1, keepdim=True)).clamp(min=0)
    return joints


@cache
def _tables(kind: str) -> tuple[Tensor, Tensor]:
    """The rest posture (D,) and the shares (D, D), own freedom by a person's."""
    chosen, rest, moves = KINDS[kind], torch.zeros(len(FREEDOMS)), torch.zeros(len(FREEDOMS), len(FREEDOMS))
    for row, name in enumerate(FREEDOMS):
        side, _, bare = name.partition("_")
        one_sided = side in ("left", "right")
        own = bare if one_sided else name
        rest[row] = chosen.rest.get(own, 0.0)
        for of, share in chosen.moves.get(own, {}).items():
            source = f"{side}_{of}" if one_sided and f"{side}_{of}" in FREEDOMS else of
            moves[row, FREEDOMS.index(source)] = share
    return rest, moves
