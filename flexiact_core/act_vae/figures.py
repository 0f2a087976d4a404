"""Procedural figures: 13 joints of a body of sticks that does one of nine actions, seen from somewhere in front.

They make the shipped weights and the truth that tests measure against; nothing of them was captured from anybody.
Shape letters: B clips, T frames, D degrees of freedom of the body.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .letterbox import grow_box, person_box, to_box

# What a body can do, in degrees; rise in shares of its height. Arms and legs: forward, aside, bend; arms also roll,
# which turns the bend from forward (0) to upward (90).
FREEDOMS = (
    "lean", "tilt", "rise",
    "left_arm_forward", "left_arm_aside", "left_elbow", "left_roll",
    "right_arm_forward", "right_arm_aside", "right_elbow", "right_roll",
    "left_leg_forward", "left_leg_aside", "left_knee",
    "right_leg_forward", "right_leg_aside", "right_knee",
)  # fmt: skip
STANCE = {
    "left_arm_forward": 4, "right_arm_forward": 4, "left_arm_aside": 9, "right_arm_aside": 9, "left_elbow": 10,
    "right_elbow": 10, "left_leg_aside": 5, "right_leg_aside": 5,
}  # fmt: skip


def _both(**values: float) -> dict[str, float]:
    """The same on the left and the right: arm_forward=30 is left_arm_forward=30 and right_arm_forward=30."""
    return {f"{side}_{name}": value for name, value in values.items() for side in ("left", "right")}


# Of each action the postures at shares of its course; it begins and ends in the stance. No two stretches of one course
# pass through the same posture, so that a pose tells where the action is.
ACTIONS: dict[str, tuple[tuple[float, dict[str, float]], ...]] = {
    "walk": (
        (0.22, {"right_leg_forward": 38, "right_knee": 12, "left_leg_forward": -22, "left_knee": 12,
                "left_arm_forward": 38, "right_arm_forward": -28, "left_elbow": 30, "right_elbow": 15}),
        (0.48, {"left_leg_forward": 22, "left_knee": 62, "left_elbow": 20, "right_elbow": 20}),
        (0.74, {"left_leg_forward": 38, "left_knee": 12, "right_leg_forward": -22, "right_knee": 12,
                "right_arm_forward": 38, "left_arm_forward": -28, "right_elbow": 30, "left_elbow": 15}),
    ),
    "jumping_jacks": (
        (0.16, _both(knee=45, leg_forward=24, arm_forward=-18, arm_aside=18)),
        (0.45, {"rise": 0.1} | _both(arm_aside=158, leg_aside=26, elbow=8)),
        (0.62, _both(arm_aside=165, leg_aside=28, elbow=20)),
        (0.82, _both(arm_aside=28, arm_forward=80, leg_aside=12, elbow=40)),
    ),
    "squat": (
        (0.25, {"lean": 18} | _both(arm_forward=80, leg_forward=46, knee=58, leg_aside=12)),
        (0.5, {"lean": 34} | _both(arm_forward=98, leg_forward=98, knee=116, leg_aside=16)),
        (0.75, {"lean": 26} | _both(arm_forward=10, leg_forward=56, knee=62, leg_aside=12, arm_aside=24)),
    ),
    "kick": (
        (0.2, {"right_leg_forward": -32, "right_knee": 70, "left_arm_forward": 30, "right_arm_aside": 30}),
        (0.46, {"right_leg_forward": 88, "right_knee": 6, "lean": -16, "left_arm_aside": 62, "right_arm_aside": 62}),
        (0.72, {"right_leg_forward": 58, "right_knee": 92, "left_arm_aside": 34, "right_arm_aside": 34}),
    ),
    "punch": (
        (0.2, {"left_arm_forward": 38, "left_elbow": 112, "right_arm_forward": -26, "right_elbow": 112,
               "left_leg_forward": 18, "right_leg_forward": -18}),
        (0.45, {"right_arm_forward": 90, "right_elbow": 2, "left_arm_forward": 20, "left_elbow": 128, "lean": 14,
                "left_leg_forward": 30, "left_knee": 28, "right_leg_forward": -28, "right_arm_aside": 4}),
        (0.72, {"right_arm_forward": 46, "right_elbow": 118, "left_arm_forward": 42, "left_elbow": 118,
                "left_leg_forward": 18, "right_leg_forward": -18}),
    ),
    "wave": (
        (0.22, {"right_arm_aside": 72, "right_elbow": 66, "right_roll": 90}),
        (0.42, {"right_arm_aside": 112, "right_elbow": 12, "right_roll": 90, "tilt": -5}),
        (0.6, {"right_arm_aside": 98, "right_elbow": 112, "right_roll": 90, "tilt": 5}),
        (0.8, {"right_arm_aside": 70, "right_elbow": 14, "right_roll": 90}),
    ),
    "bow": (
        (0.25, {"lean": 44} | _both(arm_forward=-22, arm_aside=6)),
        (0.5, {"lean": 92} | _both(arm_forward=8, arm_aside=6, leg_forward=-6)),
        (0.75, {"lean": 46} | _both(arm_forward=62, arm_aside=14, elbow=30)),
    ),
    "lunge": (
        (0.22, {"left_leg_forward": 66, "left_knee": 78} | _both(arm_aside=44, elbow=82)),
        (0.5, {"left_leg_forward": 84, "left_knee": 88, "right_leg_forward": -34, "right_knee": 52}
              | _both(arm_aside=50, elbow=92)),
        (0.76, {"left_leg_forward": 34, "left_knee": 22, "right_leg_forward": -28, "right_knee": 10}
               | _both(arm_aside=46, elbow=84)),
    ),
    "throw": (
        (0.22, {"right_arm_aside": 96, "right_elbow": 96, "right_roll": 90, "left_arm_forward": 64,
                "left_leg_forward": 46, "left_knee": 62, "lean": -12}),
        (0.46, {"right_arm_aside": 150, "right_arm_forward": 20, "right_elbow": 40, "left_arm_forward": 30,
                "left_leg_forward": 34, "left_knee": 16, "right_leg_forward": -22}),
        (0.68, {"right_arm_forward": 64, "right_elbow": 4, "lean": 42, "left_leg_forward": 36, "left_knee": 40,
                "right_leg_forward": -30, "right_knee": 20, "left_arm_forward": -24}),
    ),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class FigureClips:
    """Clips of figures: poses (B, T, 26) in -1..1, the first of each the source pose; the action (B,) of each.

    neutral (B,) says which start from the stance that all actions share, crossed (B,) which start in the middle of
    another action than the one that follows.
    """

    poses: Tensor
    action: Tensor
    neutral: Tensor
    crossed: Tensor


def draw_figures(
    num_clips: int,
    num_frames: int,
    generator: torch.Generator,
    *,
    neutral: float = 0.5,
    crossed: float = 0.0,
    margin: tuple[float, float] = (0.25, 0.5),
) -> FigureClips:
    """Clips of random bodies, actions, tempi, views and starts.

    A share `neutral` starts from the stance, a share `crossed` in the middle of another action, from which the body
    goes over into its own within two frames; the rest starts in the middle of its own. The box of a clip is that of
    its first pose, wider by a share in `margin` of its longer side.
    """
    action = torch.randint(len(ACTIONS), (num_clips,), generator=generator)
    kind = torch.rand(num_clips, generator=generator)
    is_neutral, is_crossed = kind < neutral, (kind >= neutral) & (kind < neutral + crossed)
    start = torch.rand(num_clips, generator=generator)
    tempo = _between(0.1, 0.14, num_clips, generator)
    other = (action + 1 + torch.randint(len(ACTIONS) - 1, (num_clips,), generator=generator)) % len(ACTIONS)
    course = torch.where(is_neutral | is_crossed, 0.0, start)[:, None] + tempo[:, None] * torch.arange(num_frames)
    posture = _postures(action[:, None].expand_as(course), course)
    before = _postures(other, start)[:, None]
    share = (torch.arange(num_frames) / 2).clamp(max=1)[None, :, None] * torch.ones(num_clips, 1, 1)
    posture = torch.where(is_crossed[:, None, None], torch.lerp(before, posture, _ease(share)), posture)
    posture = posture * _between(0.85, 1.15, (num_clips, 1, posture.shape[-1]), generator)
    posture = posture + torch.randn(posture.shape[0], 1, posture.shape[-1], generator=generator) * _SHAKE
    points = _seen(_joints(posture, _draw_body(num_clips, generator)), generator)
    wider = _between(*margin, num_clips, generator)
    poses = to_box(points, grow_box(person_box(points[:, 0]), wider)[:, None])
    return FigureClips(poses.flatten(2), action, is_neutral, is_crossed)


def standing_figure() -> Tensor:
    """A figure in the stance, from the front: joints (13, 2) in shares of its height, x to the right, y down."""
    posture = _postures(torch.zeros(1, dtype=torch.long), torch.zeros(1))[:, None]
    body = {name: torch.full((1,), (low + high) / 2) for name, (low, high) in _SIZES.items()}
    points = _joints(posture, body)[0, 0, :, :2] * torch.tensor([1.0, -1.0])
    return (points - points.amin(0)) / (points[:, 1].max() - points[:, 1].min())


def postures_of(action: str, course: Tensor) -> Tensor:
    """The postures (..., D) of an action at shares (...) of its course, in the units of FREEDOMS; 0 is the stance.

    Raises ValueError for unknown actions.
    """
    return _postures(torch.full_like(course, list(ACTIONS).index(action), dtype=torch.long), course)


def draw_body(generator: torch.Generator) -> dict[str, float]:
    """The lengths of a random body's parts, in shares of its height."""
    return {name: float(value) for name, value in _draw_body(1, generator).items()}


def joints_of(postures: Tensor, body: dict[str, float]) -> Tensor:
    """Where the joints JOINTS of a body are in postures (T, D): (T, 13, 3) in shares of its height.

    x to the person's left, y up from the ground, z forward.
    """
    return _joints(postures[None], {name: torch.tensor([length]) for name, length in body.items()})[0]


def _stance() -> Tensor:
    return torch.tensor([float(STANCE.get(name, 0)) for name in FREEDOMS])


def _tables() -> tuple[Tensor, Tensor]:
    """Shares (A, K) and postures (A, K, D) of all actions, padded with the stance at the end."""
    most = max(map(len, ACTIONS.values())) + 2
    shares, postures = torch.ones(len(ACTIONS), most), _stance().repeat(len(ACTIONS), most, 1)
    for number, course in enumerate(ACTIONS.values()):
        shares[number, 0] = 0.0
        for place, (share, posture) in enumerate(course, 1):
            shares[number, place] = share
            for name, value in posture.items():
                postures[number, place, FREEDOMS.index(name)] = value
    return shares, postures


def _postures(action: Tensor, course: Tensor) -> Tensor:
    """The postures (..., D) of actions (...) at shares of their courses (...), which go round."""
    shares, postures = _tables()
    course = course % 1.0
    shares = shares[action]
    after = (shares <= course[..., None]).sum(-1).clamp(max=shares.shape[-1] - 1)
    low, high = (shares.gather(-1, place[..., None])[..., 0] for place in (after - 1, after))
    share = ((course - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)
    return torch.lerp(postures[action, after - 1], postures[action, after], _ease(share)[..., None])


def _ease(share: Tensor) -> Tensor:
    return (1 - (share * math.pi).cos()) / 2


# Lengths of the parts of a body, in shares of its height.
_SIZES = {
    "neck": (0.15, 0.19), "torso": (0.27, 0.33), "shoulders": (0.09, 0.13), "hips": (0.05, 0.08),
    "upper_arm": (0.15, 0.19), "forearm": (0.14, 0.18), "thigh": (0.22, 0.27), "shank": (0.21, 0.26),
}  # fmt: skip
# How far a body's own posture is from the one meant: degrees, and no shift of its height.
_SHAKE = torch.tensor([0.0 if name == "rise" else 3.0 for name in FREEDOMS])


def _draw_body(num_clips: int, generator: torch.Generator) -> dict[str, Tensor]:
    return {name: _between(low, high, num_clips, generator) for name, (low, high) in _SIZES.items()}


def _joints(posture: Tensor, body: dict[str, Tensor]) -> Tensor:
    """Joints (B, T, 13, 3) of postures (B, T, D): x to the person's left, y up, z forward; feet on the ground."""
    value = dict(zip(FREEDOMS, posture.unbind(-1)))
    turn = {name: angle * (math.pi / 180) for name, angle in value.items() if name != "rise"}
    size = {name: length[:, None, None] for name, length in body.items()}
    up, left = torch.tensor([0.0, 1.0, 0.0]), torch.tensor([1.0, 0.0, 0.0])
    chest = up * size["torso"]
    upper: dict[str, Tensor] = {"head": (chest + up * size["neck"]).expand(*posture.shape[:2], 3)}
    lower: dict[str, Tensor] = {}
    for side, sign in (("left", 1.0), ("right", -1.0)):
        arm, forearm = _limb(
            turn[f"{side}_arm_forward"], turn[f"{side}_arm_aside"], turn[f"{side}_elbow"], turn[f"{side}_roll"], sign
        )
        shoulder = chest + left * sign * size["shoulders"]
        elbow = shoulder + arm * size["upper_arm"]
        upper |= {f"{side}_shoulder": shoulder.expand_as(elbow), f"{side}_elbow": elbow}
        upper[f"{side}_wrist"] = elbow + forearm * size["forearm"]
        none = torch.zeros_like(turn["lean"])
        thigh, shank = _limb(turn[f"{side}_leg_forward"], turn[f"{side}_leg_aside"], -turn[f"{side}_knee"], none, sign)
        hip = left * sign * size["hips"]
        knee = hip + thigh * size["thigh"]
        lower |= {f"{side}_hip": hip.expand_as(knee), f"{side}_knee": knee}
        lower[f"{side}_ankle"] = knee + shank * size["shank"]
    joints = {name: _bent(point, turn["lean"], turn["tilt"]) for name, point in upper.items()} | lower
    stacked = torch.stack([joints[name] for name in JOINTS], dim=2)
    feet = torch.minimum(joints["left_ankle"][..., 1], joints["right_ankle"][..., 1])
    stacked[..., 1] += (value["rise"].clamp(min=0) - feet)[..., None]
    return stacked


JOINTS = (
    "head", "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip",
    "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle",
)  # fmt: skip


def _limb(forward: Tensor, aside: Tensor, bend: Tensor, roll: Tensor, sign: float) -> tuple[Tensor, Tensor]:
    """Directions (B, T, 3) of a limb's upper and lower part, which hang down at 0."""
    sides, downs = aside.sin(), aside.cos()
    upper = torch.stack([sign * sides, -downs * forward.cos(), downs * forward.sin()], -1)
    ahead = torch.stack([torch.zeros_like(forward), forward.sin(), forward.cos()], -1)
    outward = torch.stack([sign * downs, sides * forward.cos(), -sides * forward.sin()], -1)
    across = ahead * roll.cos()[..., None] + outward * roll.sin()[..., None]
    return upper, upper * bend.cos()[..., None] + across * bend.sin()[..., None]


def _bent(point: Tensor, lean: Tensor, tilt: Tensor) -> Tensor:
    """Points turned forward by `lean` and to the side by `tilt`, about the hips."""
    x, y, z = point.unbind(-1)
    y, z = y * lean.cos() - z * lean.sin(), y * lean.sin() + z * lean.cos()
    x, y = x * tilt.cos() + y * tilt.sin(), y * tilt.cos() - x * tilt.sin()
    return torch.stack([x, y, z], -1)


def _seen(joints: Tensor, generator: torch.Generator) -> Tensor:
    """Picture points (B, T, 13, 2), y down, from a camera to one side and a little above or below."""
    count = len(joints)
    turn = _between(-1.05, 1.05, count, generator)[:, None, None]
    pitch = _between(-0.12, 0.12, count, generator)[:, None, None]
    x, y, z = joints.unbind(-1)
    across, depth = x * turn.cos() + z * turn.sin(), z * turn.cos() - x * turn.sin()
    return torch.stack([across, -(y * pitch.cos() - depth * pitch.sin())], -1)


def _between(low: float, high: float, size, generator: torch.Generator) -> Tensor:
    shape = (size,) if isinstance(size, int) else size
    return low + (high - low) * torch.rand(shape, generator=generator)
