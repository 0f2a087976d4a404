"""From what a body does (hips, spine, arms by direction, feet by place) to the rotations of its bones.

x runs to the person's left, y up, z forward. Rotations are (3, 3) in the world, identity at rest; lengths are metres.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.spatial.transform import Rotation

from .source import BONES, SIDES, Human


@dataclass(frozen=True)
class Arm:
    """Directions of upper arm and forearm in the chest's frame, for the left side; the right side mirrors x."""

    upper: tuple[float, float, float] = (0.24, -0.97, -0.04)
    fore: tuple[float, float, float] = (0.14, -0.95, 0.27)


@dataclass(frozen=True)
class Foot:
    """Where the ball of a foot is, against where it is at rest; pitch lifts the heel, yaw turns left; degrees."""

    x: float = 0.0
    y: float = 0.0
    z: float = 0.0
    pitch: float = 0.0
    yaw: float = 0.0


@dataclass(frozen=True)
class Stance:
    """One moment. hips are metres from rest; angles are degrees: yaw to the left, lean to the left, bend forwards."""

    hips: tuple[float, float, float] = (0.0, 0.0, 0.0)
    hips_yaw: float = 0.0
    hips_lean: float = 0.0
    bend: float = 0.0
    twist: float = 0.0
    lean: float = 0.0
    nod: float = 0.0
    look: float = 0.0
    arms: dict[str, Arm] = field(default_factory=lambda: {side: Arm() for side in SIDES})
    feet: dict[str, Foot] = field(default_factory=lambda: {side: Foot() for side in SIDES})


def pose_bones(human: Human, stance: Stance) -> tuple[np.ndarray, np.ndarray]:
    """(B, 4) rotations of the bones against their parents, x y z w, and where the hips are (3,)."""
    body = _Body(human)
    hips = human.heads[0] + np.array(stance.hips)
    body.set("Hips", _turn(stance.hips_yaw, 0, stance.hips_lean), hips)
    turned = body.turns["Hips"]
    for bone in ("Spine", "Spine1", "Spine2"):
        turned = turned @ _turn(stance.twist / 3, stance.bend / 3, stance.lean / 3)
        body.set(bone, turned)
    body.set("Neck", turned @ _turn(stance.look / 2, (stance.nod - stance.bend * 0.5) / 2, -stance.lean / 2))
    body.set(
        "Head", body.turns["Neck"] @ _turn(stance.look / 2, (stance.nod - stance.bend * 0.5) / 2, -stance.lean / 2)
    )
    for side in SIDES:
        _arm(body, side, stance.arms[side])
        _leg(body, side, stance.feet[side], stance.hips_yaw)
    return body.local(), hips


def reach(human: Human) -> float:
    """How long a straight leg is, hip to ankle."""
    hip, knee, ankle = (human.heads[BONES.index(f"Left{bone}")] for bone in ("UpLeg", "Leg", "Foot"))
    return float(np.linalg.norm(knee - hip) + np.linalg.norm(ankle - knee))


class _Body:
    """Bones set so far: their rotations in the world, and where they begin."""

    def __init__(self, human: Human):
        self.human = human
        self.turns: dict[str, np.ndarray] = {}
        self.places: dict[str, np.ndarray] = {}

    def rest(self, bone: str) -> np.ndarray:
        return self.human.heads[BONES.index(bone)]

    def begin(self, bone: str) -> np.ndarray:
        """Where a bone begins, its parent being set."""
        parent = BONES[self.human.parents[BONES.index(bone)]]
        return self.places[parent] + self.turns[parent] @ (self.rest(bone) - self.rest(parent))

    def set(self, bone: str, turn: np.ndarray, place: np.ndarray | None = None) -> None:
        self.places[bone] = self.begin(bone) if place is None else place
        self.turns[bone] = turn

    def local(self) -> np.ndarray:
        rows = []
        for index, bone in enumerate(BONES):
            parent = self.human.parents[index]
            turn = self.turns[bone] if parent < 0 else self.turns[BONES[parent]].T @ self.turns[bone]
            rows.append(Rotation.from_matrix(turn).as_quat())
        return np.array(rows)


def _turn(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Yaw to the left about y, pitch forwards about x, lean to the left about -z; degrees."""
    return Rotation.from_euler("YXZ", [yaw, pitch, -roll], degrees=True).as_matrix()


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def _frame(way: np.ndarray, hinge: np.ndarray) -> np.ndarray:
    """Axes with the first along `way` and the second as near to `hinge` as it can be."""
    way = _unit(way)
    hinge = _unit(hinge - (hinge @ way) * way)
    return np.stack([way, hinge, np.cross(way, hinge)], 1)


def _arm(body: _Body, side: str, arm: Arm) -> None:
    mirror = np.array([1.0 if side == "Left" else -1.0, 1, 1])
    chest = body.turns["Spine2"]
    upper, fore = _unit(np.array(arm.upper)) * mirror, _unit(np.array(arm.fore)) * mirror
    # The collar bone goes along when the arm is raised.
    lift = 22 * np.clip((upper[1] + 0.3) / 1.3, 0, 1) * (1 if side == "Left" else -1)
    body.set(f"{side}Shoulder", chest @ _turn(0, 0, -lift))
    shoulder, elbow, wrist = (body.rest(f"{side}{bone}") for bone in ("Arm", "ForeArm", "Hand"))
    upper0, fore0 = _unit(elbow - shoulder), _unit(wrist - elbow)
    hinge0, hinge = np.cross(upper0, fore0), np.cross(upper, fore)
    body.set(f"{side}Arm", chest @ _frame(upper, hinge) @ _frame(upper0, hinge0).T)
    body.set(f"{side}ForeArm", chest @ _frame(fore, hinge) @ _frame(fore0, hinge0).T)
    body.set(f"{side}Hand", body.turns[f"{side}ForeArm"])


def _leg(body: _Body, side: str, foot: Foot, hips_yaw: float) -> None:
    """Two bones reach the ankle; the knee points between where hips and foot look."""
    hip0, knee0, ankle0, ball0 = (body.rest(f"{side}{bone}") for bone in ("UpLeg", "Leg", "Foot", "ToeBase"))
    standing = _turn(foot.yaw, foot.pitch, 0)
    ball = ball0 + np.array([foot.x, foot.y, foot.z])
    ankle = ball + standing @ (ankle0 - ball0)
    hip = body.begin(f"{side}UpLeg")
    thigh, shin = np.linalg.norm(knee0 - hip0), np.linalg.norm(ankle0 - knee0)
    way = ankle - hip
    distance = min(np.linalg.norm(way), 0.9995 * (thigh + shin))
    way = _unit(way)
    forward = _turn((hips_yaw + foot.yaw) / 2, 0, 0) @ np.array([0.12 if side == "Left" else -0.12, 0, 1.0])
    forward = _unit(forward - (forward @ way) * way)
    cosine = np.clip((thigh**2 + distance**2 - shin**2) / (2 * thigh * distance), -1, 1)
    knee = hip + thigh * (cosine * way + np.sqrt(1 - cosine**2) * forward)
    hinge = np.cross(forward, way)
    for bone, start, end, start0, end0 in (
        ("UpLeg", hip, knee, hip0, knee0),
        ("Leg", knee, hip + distance * way, knee0, ankle0),
    ):
        rest = _frame(end0 - start0, np.array([1.0, 0, 0]))
        body.set(f"{side}{bone}", _frame(end - start, hinge) @ rest.T)
    body.set(f"{side}Foot", standing)
    # Toes stay flat while the heel lifts.
    body.set(f"{side}ToeBase", _turn(foot.yaw, 0.25 * max(foot.pitch, 0) + min(foot.pitch, 0), 0))
