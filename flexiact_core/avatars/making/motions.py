"""Six clips, as keys over time: walk, wave, jump, sit, turn, dance. Each ends as it begins, so it can be repeated."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.interpolate import PchipInterpolator

from .glb import Motion
from .rig import Arm, Foot, Stance, pose_bones
from .source import SIDES, Human

KEYS_A_SECOND = 15


def make_motions(human: Human) -> list[Motion]:
    """All clips for one body; the first is what a viewer plays."""
    moments: dict[str, tuple[float, Callable[[float], Stance]]] = {
        "walk": (1.1, walk),
        "wave": (2.6, wave),
        "jump": (1.8, jump),
        "sit": (4.2, sit),
        "turn": (3.2, turn),
        "dance": (4.0, dance),
    }
    return [_record(human, name, duration, at) for name, (duration, at) in moments.items()]


def _record(human: Human, name: str, duration: float, at: Callable[[float], Stance]) -> Motion:
    times = np.linspace(0, duration, round(duration * KEYS_A_SECOND) + 1)
    rows, hips = zip(*(pose_bones(human, at(float(t / duration))) for t in times))
    rotations = np.array(rows)
    for row in range(1, len(rotations)):  # the nearer of a quaternion and its negative
        sign = np.sign((rotations[row] * rotations[row - 1]).sum(-1, keepdims=True))
        rotations[row] *= np.where(sign == 0, 1, sign)
    return Motion(name, times, rotations, np.array(hips))


def _keyed(phase: float, keys: dict[float, float]) -> float:
    """A smooth value through the keys over one round, 0..1, that goes on from the last to the first."""
    at, values = np.array(sorted(keys)), [keys[key] for key in sorted(keys)]
    wide = np.concatenate([at[-2:] - 1, at, at[:2] + 1])
    return float(PchipInterpolator(wide, [*values[-2:], *values, *values[:2]])(phase % 1.0))


def _mix(first: Arm, second: Arm, share: float) -> Arm:
    mixed = [
        tuple(float(x) for x in (1 - share) * np.array(a) + share * np.array(b))
        for a, b in ((first.upper, second.upper), (first.fore, second.fore))
    ]
    return Arm(*mixed)


def _swing(degrees: float, elbow: float, out: float = 0.2) -> Arm:
    """An arm swung forwards by `degrees`, the elbow bent by `elbow`."""
    a, b = np.radians(degrees), np.radians(degrees + elbow)
    return Arm((out, -np.cos(a), np.sin(a)), (out * 0.5, -np.cos(b), np.sin(b)))


def walk(phase: float) -> Stance:
    """A step with each foot. In place: the ground runs backwards at 1.1 m/s."""
    feet, arms = {}, {}
    for side, shift in zip(SIDES, (0.0, 0.5)):
        own = (phase + shift) % 1.0
        inward = -0.055 if side == "Left" else 0.055
        pitch = _keyed(own, {0: -18, 0.1: 0, 0.38: 4, 0.6: 42, 0.68: 48, 0.82: 8, 0.93: -16})
        height = _keyed(own, {0: 0.035, 0.1: 0.0, 0.35: 0.0, 0.6: 0.0, 0.68: 0.035, 0.8: 0.06, 0.93: 0.055})
        place = _keyed(own, {0: 0.30, 0.1: 0.235, 0.3: 0.035, 0.6: -0.30, 0.68: -0.28, 0.8: 0.02, 0.93: 0.28})
        feet[side] = Foot(inward, height, place, pitch)
        arms[side] = _swing(-24 * np.cos(2 * np.pi * (own - 0.02)) - 2, 16 + 10 * np.cos(2 * np.pi * (own - 0.45)))
    forth = np.cos(2 * np.pi * phase)
    return Stance(
        hips=(0.018 * np.sin(2 * np.pi * phase), -0.045 - 0.018 * np.cos(4 * np.pi * (phase - 0.02)), 0.0),
        hips_yaw=-5 * forth,
        hips_lean=2.5 * np.sin(2 * np.pi * phase),
        bend=3,
        twist=12 * forth,
        lean=-2 * np.sin(2 * np.pi * phase),
        look=-6 * forth,
        nod=-2,
        arms=arms,
        feet=feet,
    )


def wave(phase: float) -> Stance:
    """The right hand goes up and greets three times."""
    up = _keyed(phase, {0: 0, 0.06: 0, 0.24: 1, 0.78: 1, 0.96: 0})
    side = np.sin(2 * np.pi * 3 * (phase - 0.24) / 0.54) if 0.24 < phase < 0.78 else 0.0
    raised = Arm((0.80, 0.12, 0.35), (0.22 + 0.45 * side, 0.95, 0.22))
    between = Arm((0.55, -0.6, 0.5), (0.3, 0.3, 0.9))
    arm = _mix(Arm(), between, min(2 * up, 1)) if up < 0.5 else _mix(between, raised, 2 * up - 1)
    sway = np.sin(2 * np.pi * phase)
    return Stance(
        hips=(0.02 * up, -0.012, 0.0),
        hips_lean=-1.5 * up,
        lean=3 * up,
        twist=-4 * up,
        look=3 * sway,
        nod=-2 * up,
        arms={"Left": Arm((0.26, -0.96, 0.02 * sway), (0.16, -0.93, 0.3)), "Right": arm},
        feet={"Left": Foot(-0.03, yaw=8), "Right": Foot(0.03, yaw=-8)},
    )


def jump(phase: float) -> Stance:
    """Crouch, leap, land, rise."""
    height = _keyed(
        phase, {0: -0.01, 0.08: -0.03, 0.26: -0.26, 0.36: 0.06, 0.47: 0.36, 0.58: 0.06, 0.67: -0.2, 0.9: -0.01}
    )
    lift = _keyed(phase, {0: 0, 0.3: 0, 0.36: 0.015, 0.47: 0.27, 0.58: 0.02, 0.61: 0, 0.8: 0})
    pitch = _keyed(phase, {0: 0, 0.26: 6, 0.36: 52, 0.47: 42, 0.58: 26, 0.64: 0, 0.9: 0})
    bend = _keyed(phase, {0: 1, 0.26: 38, 0.38: 4, 0.47: -2, 0.58: 8, 0.67: 28, 0.9: 1})
    back = _keyed(phase, {0: 0, 0.08: -0.02, 0.26: -0.13, 0.36: 0.0, 0.47: 0, 0.58: 0, 0.67: -0.11, 0.9: 0})
    swing = _keyed(phase, {0: 0, 0.08: 10, 0.24: -48, 0.4: 128, 0.47: 140, 0.58: 95, 0.68: 28, 0.9: 0})
    elbow = _keyed(phase, {0: 16, 0.24: 14, 0.4: 30, 0.47: 18, 0.58: 30, 0.68: 45, 0.9: 16})
    feet = {side: Foot(sign * -0.03, lift, 0, pitch, sign * 6) for side, sign in zip(SIDES, (1, -1))}
    arms = {side: _swing(swing, elbow, 0.28) for side in SIDES}
    return Stance(hips=(0, height, back), bend=bend, nod=-0.4 * bend, arms=arms, feet=feet)


def sit(phase: float) -> Stance:
    """Down on a seat of 0.45 m, a rest with the hands on the thighs, and up again."""
    down = _keyed(phase, {0: 0, 0.04: 0, 0.32: 1, 0.68: 1, 0.96: 0})
    bend = _keyed(phase, {0: 0, 0.04: 1, 0.18: 36, 0.34: 4, 0.5: 2, 0.66: 6, 0.8: 38, 0.96: 1})
    rest = Arm((0.2, -0.9, 0.32), (-0.1, -0.28, 0.93))
    turn_head = 14 * np.sin(2 * np.pi * (phase - 0.35) / 0.3) if 0.35 < phase < 0.65 else 0.0
    feet = {side: Foot(sign * -0.02, 0, 0.03 * down, 0, sign * 7) for side, sign in zip(SIDES, (1, -1))}
    return Stance(
        hips=(0, -0.012 - 0.40 * down, -0.36 * down),
        bend=bend,
        nod=-0.35 * bend,
        look=turn_head,
        arms={side: _mix(Arm(), rest, down) for side in SIDES},
        feet=feet,
    )


def turn(phase: float) -> Stance:
    """Once round to the left, in four steps of each foot."""
    steps, quarter = 4, 90.0
    feet, yaws = {}, {}
    at = phase * steps
    for side, late in (("Left", 0.05), ("Right", 0.5)):
        done = np.floor(at - late)
        share = float(np.clip((at - late - done) / 0.42, 0, 1)) if at >= late else 1.0
        done = done if at >= late else -1.0
        eased = share * share * (3 - 2 * share)
        yaw = quarter * (min(done, steps - 1) + eased) if done >= 0 else 0.0
        lift = 0.07 * np.sin(np.pi * share) if done >= 0 and done < steps else 0.0
        yaws[side] = yaw
        feet[side] = (yaw, lift, share)
    body = (yaws["Left"] + yaws["Right"]) / 2
    placed = {}
    for side, sign in zip(SIDES, (1, -1)):
        yaw, lift, share = feet[side]
        placed[side] = _foot_round(sign, yaw, lift, share)
    sway = np.sin(2 * np.pi * (at + 0.1))
    arms = {side: _swing(8 * sign * sway, 22, 0.26) for side, sign in zip(SIDES, (1, -1))}
    return Stance(
        hips=(0, -0.03 - 0.008 * np.cos(4 * np.pi * at), 0),
        hips_yaw=body,
        twist=7 * np.sin(np.pi * phase) ** 0.5 if 0 < phase < 1 else 0.0,
        look=10 * np.sin(np.pi * phase) ** 0.5 if 0 < phase < 1 else 0.0,
        bend=2,
        arms=arms,
        feet=placed,
    )


# Where the balls of the feet are at rest, against the hips' axis: half their distance, and how far in front.
_BALL_X, _BALL_Z = 0.15, 0.12


def _foot_round(sign: int, yaw: float, lift: float, share: float) -> Foot:
    """A foot that has gone round the body's axis by `yaw` degrees."""
    angle = np.radians(yaw)
    x, z = sign * (_BALL_X - 0.04), _BALL_Z
    moved = np.array([np.cos(angle) * x + np.sin(angle) * z, -np.sin(angle) * x + np.cos(angle) * z])
    heel = 22 * np.sin(np.pi * share) if lift > 0 else 0.0
    return Foot(moved[0] - sign * _BALL_X, lift * 0.6, moved[1] - _BALL_Z, heel, yaw)


def dance(phase: float) -> Stance:
    """Step and touch to both sides on eight beats; the arms go up on the other side."""
    left = _keyed(phase, {0: 0, 0.12: 1, 0.25: 1, 0.38: 0, 0.5: 0, 0.62: 0, 0.75: 0, 0.88: 0})
    right = _keyed(phase, {0: 0, 0.12: 0, 0.25: 0, 0.38: 0, 0.5: 0, 0.62: 1, 0.75: 1, 0.88: 0})
    side = left - right
    beat = abs(np.sin(2 * np.pi * 4 * phase))
    swing = np.sin(2 * np.pi * 2 * phase)

    def lift(start: float) -> float:
        own = ((phase - start) % 1.0) / 0.12
        return 0.07 * np.sin(np.pi * own) if own < 1 else 0.0

    feet = {
        "Left": Foot(0.16 * left - 0.04, lift(0.0) + lift(0.25), 0.02, 30 * (lift(0) + lift(0.25)) / 0.07, 8),
        "Right": Foot(-0.16 * right + 0.04, lift(0.5) + lift(0.75), 0.02, 30 * (lift(0.5) + lift(0.75)) / 0.07, -8),
    }
    high = {"Left": _keyed(phase, {0: 0.2, 0.2: 0.1, 0.45: 0.3, 0.7: 1, 0.9: 0.6}), "Right": 0.0}
    high["Right"] = _keyed(phase - 0.5, {0: 0.2, 0.2: 0.1, 0.45: 0.3, 0.7: 1, 0.9: 0.6})
    low = {name: Arm((0.5, -0.8, 0.15 + 0.25 * sign * swing), (0.15, 0.05, 0.95)) for name, sign in zip(SIDES, (1, -1))}
    tall = Arm((0.75, 0.6, 0.2), (0.25 + 0.3 * swing, 0.93, 0.25))
    return Stance(
        hips=(0.10 * side + 0.03 * swing, -0.04 - 0.045 * beat, 0),
        hips_yaw=-8 * swing,
        hips_lean=5 * swing,
        bend=4 + 3 * beat,
        twist=14 * swing,
        lean=-7 * swing - 4 * side,
        nod=4 * beat - 3,
        look=6 * side,
        arms={name: _mix(low[name], tall, high[name]) for name in SIDES},
        feet=feet,
    )
