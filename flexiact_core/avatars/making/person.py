"""Two people, dressed: a man in shirt and trousers, a woman in a dress. Clothes are pieces of MakeHuman's helper suit,
cut along hems, loosened and coloured; heads and hands are pieces of the body. Lengths are metres."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .mesh import Part, compact, cut, grow, reduce_faces, smooth
from .source import BONES, SIDES, Human, read_human

_YOUNG = ("african", "asian", "caucasian")
HEAD, NECK = BONES.index("Head"), BONES.index("Neck")


@dataclass(frozen=True)
class Look:
    """Colours in sRGB 0..1, and the target of the body."""

    sex: str
    skin: tuple[float, float, float]
    hair: tuple[float, float, float]
    top: tuple[float, float, float]
    bottom: tuple[float, float, float]
    shoes: tuple[float, float, float]
    sole: tuple[float, float, float]
    iris: tuple[float, float, float]
    lips: tuple[float, float, float]


MAN = Look(
    "male", (0.74, 0.54, 0.43), (0.13, 0.09, 0.07), (0.16, 0.36, 0.62), (0.25, 0.24, 0.27), (0.33, 0.2, 0.12),
    (0.82, 0.8, 0.76), (0.2, 0.13, 0.08), (0.62, 0.36, 0.31),
)  # fmt: skip
WOMAN = Look(
    "female", (0.62, 0.42, 0.31), (0.1, 0.06, 0.05), (0.9, 0.69, 0.16), (0.9, 0.69, 0.16), (0.64, 0.12, 0.14),
    (0.3, 0.1, 0.1), (0.16, 0.1, 0.06), (0.6, 0.25, 0.25),
)  # fmt: skip


def make_person(wheel: Path, look: Look) -> tuple[Human, list[Part]]:
    """The body that the clothes are on, and all parts that are drawn."""
    shapes = {f"macrodetails/{race}-{look.sex}-young": 1 / 3 for race in _YOUNG}
    shapes[f"macrodetails/universal-{look.sex}-young-averagemuscle-averageweight"] = 1.0
    human = read_human(wheel, shapes)
    parts = [*_head(human, look), *_hands(human, look)]
    parts += _man_clothes(human, look) if look.sex == "male" else _woman_clothes(human, look)
    return human, [part for part in parts if len(part.faces)]


def _piece(human: Human, group: str, colour: tuple[float, float, float]) -> Part:
    return compact(Part(human.points, human.faces[group], human.weights, colour))


def _at(human: Human, bone: str) -> np.ndarray:
    return human.heads[BONES.index(bone)]


def _trim(part: Part, *fields: Callable[[Part], np.ndarray]) -> Part:
    """Cut by each field in turn, each computed on what the cuts before it left."""
    for field in fields:
        part = cut(part, field(part))
    return part


def _arm_weight(part: Part) -> np.ndarray:
    rows = [BONES.index(f"{side}{bone}") for side in SIDES for bone in ("Arm", "ForeArm", "Hand")]
    return part.weights[:, rows].sum(1)


def _sleeve(human: Human, lengths: float) -> Callable[[Part], np.ndarray]:
    """Over 0 from the shoulder to `lengths` of upper arms down the arm, and everywhere off the arms."""

    def field(part: Part) -> np.ndarray:
        along = np.full(len(part.points), -0.3)
        on_arm = _arm_weight(part) > 0.5
        for side, sign in zip(SIDES, (1, -1)):
            shoulder, elbow = _at(human, f"{side}Arm"), _at(human, f"{side}ForeArm")
            way = (elbow - shoulder) / np.sum((elbow - shoulder) ** 2)
            own = on_arm & (part.points[:, 0] * sign > 0)
            along[own] = (part.points[own] - shoulder) @ way
        return lengths - along

    return field


def _above(height: float) -> Callable[[Part], np.ndarray]:
    return lambda part: np.where(_arm_weight(part) > 0.5, 1.0, part.points[:, 1] - height)


def _below(height: float) -> Callable[[Part], np.ndarray]:
    return lambda part: np.where(_arm_weight(part) > 0.5, -1.0, height - part.points[:, 1])


def _not(field: Callable[[Part], np.ndarray]) -> Callable[[Part], np.ndarray]:
    return lambda part: -field(part)


def _outside(centre: np.ndarray, radius: float) -> Callable[[Part], np.ndarray]:
    """Over 0 outside a ball: a round neckline, where the ball meets the shoulders."""
    return lambda part: np.linalg.norm(part.points - centre, axis=1) - radius


def _arms(human: Human, look: Look, sleeve: float) -> Part:
    """Bare arms from under the sleeve's end to the wrist."""
    bare = _trim(_piece(human, "helper-tights", look.skin), _not(_sleeve(human, sleeve - 0.12)))
    return reduce_faces(grow(bare, -0.006), 620)


def _shoes(human: Human, look: Look, height: float) -> list[Part]:
    feet = grow(_trim(_piece(human, "helper-tights", look.shoes), _below(height)), 0.004)
    feet = reduce_faces(feet, 560)
    floor = 0.022
    sole = replace(_trim(feet, _below(floor)), colour=look.sole)
    return [_trim(feet, _above(floor)), grow(sole, 0.003)]


def _man_clothes(human: Human, look: Look) -> list[Part]:
    hem, sleeve, ankle = _at(human, "LeftUpLeg")[1] - 0.05, 0.72, 0.085
    suit = replace(_piece(human, "helper-tights", look.top), open=True)
    throat = _at(human, "Neck") + [0, 0.035, 0.02]
    shirt = smooth(_trim(suit, _sleeve(human, sleeve), _above(hem), _outside(throat, 0.092)), 4)
    low = np.clip((hem + 0.2 - shirt.points[:, 1]) / 0.2, 0, 1) * (_arm_weight(shirt) < 0.5)
    shirt = grow(shirt, 0.009 + 0.012 * low)
    legs = smooth(_trim(replace(suit, colour=look.bottom, open=False), _below(hem + 0.07), _above(ankle)), 5)
    knee = _at(human, "LeftLeg")[1]
    legs = grow(legs, 0.006 + 0.016 * np.clip((knee + 0.15 - legs.points[:, 1]) / 0.4, 0, 1))
    neck = _trim(replace(suit, colour=look.skin, open=False), _not(_outside(throat, 0.125)))
    return [
        reduce_faces(shirt, 1100),
        reduce_faces(legs, 900),
        reduce_faces(grow(neck, -0.004), 260),
        _arms(human, look, sleeve),
        *_shoes(human, look, ankle + 0.05),
    ]


def _woman_clothes(human: Human, look: Look) -> list[Part]:
    waist, sleeve, ankle = _at(human, "Spine")[1] - 0.02, 0.28, 0.075
    suit = replace(_piece(human, "helper-tights", look.top), open=True)
    throat = _at(human, "Neck") + [0, 0.02, 0.03]
    top = _trim(suit, _sleeve(human, sleeve), _above(waist - 0.08), _outside(throat, 0.115))
    top = grow(smooth(top, 3), 0.007)
    knee = _at(human, "LeftLeg")[1]
    skirt = _trim(replace(_piece(human, "helper-skirt", look.bottom), open=True), _above(knee - 0.03))
    flare = np.clip((waist - skirt.points[:, 1]) / (waist - knee), 0, 1)
    skirt = grow(skirt, 0.006 + 0.03 * flare)
    legs = _trim(replace(suit, colour=look.skin, open=False), _below(_at(human, "Hips")[1]), _above(ankle - 0.03))
    chest = _trim(replace(suit, colour=look.skin, open=False), _not(_outside(throat, 0.15)))
    return [
        reduce_faces(top, 900),
        reduce_faces(skirt, 700),
        reduce_faces(grow(legs, -0.004), 900),
        reduce_faces(grow(chest, -0.004), 420),
        _arms(human, look, sleeve),
        *_shoes(human, look, ankle),
    ]


def _hands(human: Human, look: Look) -> list[Part]:
    parts = []
    for side, sign in zip(SIDES, (1, -1)):
        wrist, elbow = _at(human, f"{side}Hand"), _at(human, f"{side}ForeArm")
        way = (wrist - elbow) / np.linalg.norm(wrist - elbow)
        hand = _trim(
            _piece(human, "body", look.skin),
            lambda part, sign=sign: part.points[:, 0] * sign - 0.2,
            lambda part, wrist=wrist, way=way: np.where(
                _arm_weight(part) > 0.5, (part.points - wrist) @ way + 0.025, -1
            ),
        )
        parts.append(reduce_faces(hand, 420))
    return parts


def _head(human: Human, look: Look) -> list[Part]:
    body = _piece(human, "body", look.skin)
    base = _at(human, "Neck")[1] - 0.03
    head = _trim(body, lambda part: part.points[:, 1] - base, lambda part: 0.13 - np.abs(part.points[:, 0]))
    eye = human.points[np.unique(human.faces["helper-l-eye"])].mean(0)
    teeth = np.concatenate([human.faces["helper-upper-teeth"], human.faces["helper-lower-teeth"]])
    mouth = human.points[np.unique(teeth)].mean(0)
    return [
        reduce_faces(head, 1500),
        *_hair(head, eye, look),
        *_eyes(human, look),
        *_brows(head, eye, look),
        _lips(head, mouth, look),
    ]


def _hair(head: Part, eye: np.ndarray, look: Look) -> list[Part]:
    """The scalp, grown: from the forehead over the ears to the nape; for the woman with a knot behind."""
    skull = head.points[head.weights[:, HEAD] > 0.5]
    back, front = skull[:, 2].min(), eye[2]
    middle = (back + front) / 2

    def field(part: Part) -> np.ndarray:
        nape, temple = (-0.07, -0.03) if look.sex == "male" else (-0.06, -0.015)
        line = np.interp(part.points[:, 2], [back, middle - 0.03, middle + 0.03, front], [nape, temple, 0.02, 0.06])
        return np.minimum(part.points[:, 1] - eye[1] - line, 0.078 - np.abs(part.points[:, 0]))

    scalp = _trim(head, field)
    thick = 0.012 if look.sex == "male" else 0.009
    scalp = grow(smooth(scalp, 2), np.minimum(thick, 0.003 + 0.3 * np.maximum(field(scalp), 0)))
    parts = [reduce_faces(replace(scalp, colour=look.hair), 420)]
    if look.sex == "female":
        parts.append(_ball(np.array([0, eye[1] + 0.055, back - 0.028]), 0.042, look.hair, head.weights.shape[1]))
    return parts


def _ball(centre: np.ndarray, radius: float, colour: tuple, bones: int) -> Part:
    rows, columns = 8, 12
    points = [
        centre + radius * np.array([np.sin(u) * np.sin(v), np.cos(u), np.sin(u) * np.cos(v)])
        for u in np.linspace(0.01, np.pi - 0.01, rows + 1)
        for v in np.arange(columns) * 2 * np.pi / columns
    ]
    faces = []
    for row in range(rows):
        for column in range(columns):
            a, b = row * columns + column, row * columns + (column + 1) % columns
            faces += [[a, a + columns, b], [b, a + columns, b + columns]]
    weights = np.zeros((len(points), bones))
    weights[:, HEAD] = 1
    return Part(np.array(points), np.array(faces), weights, colour)


def _eyes(human: Human, look: Look) -> list[Part]:
    parts = []
    for side in "lr":
        eye = _piece(human, f"helper-{side}-eye", (0.86, 0.84, 0.82))
        middle = eye.points.mean(0)
        forward = lambda part, middle=middle: part.points[:, 2] - middle[2]  # noqa: E731
        round_ = lambda part, radius, middle=middle: radius - np.hypot(*(part.points - middle)[:, :2].T)  # noqa: E731
        white = _trim(eye, forward)
        parts.append(replace(white, colour=eye.colour))
        iris = replace(_trim(white, lambda part, f=round_: f(part, 0.0062)), colour=look.iris)
        parts.append(replace(iris, points=iris.points + [0, 0, 0.0006]))
    return parts


def _brows(head: Part, eye: np.ndarray, look: Look) -> list[Part]:
    parts = []
    for sign in (1, -1):

        def field(part: Part, sign: int = sign) -> np.ndarray:
            x = (part.points[:, 0] * sign - eye[0] - 0.002) / 0.021
            y = part.points[:, 1] - eye[1] - 0.021 + 0.004 * x * x
            return np.where(part.points[:, 2] > eye[2] - 0.03, 1 - x**2 - (y / 0.0036) ** 2, -1)

        brow = _trim(head, field)
        parts.append(grow(replace(brow, colour=look.hair), 0.0028))
    return parts


def _lips(head: Part, mouth: np.ndarray, look: Look) -> Part:
    lips = _trim(
        head,
        lambda part: part.points[:, 2] - mouth[2],
        lambda part: 1 - (part.points[:, 0] / 0.025) ** 2 - ((part.points[:, 1] - mouth[1]) / 0.0085) ** 2,
    )
    return grow(replace(lips, colour=look.lips), 0.0012)
