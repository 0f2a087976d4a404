"""The table of the people's world: how well poses, words and actions act on people that no training saw.

`python -m flexiact_core.world.making.actor_table` makes the videos of each row, measures them, and writes
actors.md, and the records of each row, into a folder. Rows that are there are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .. import shipped
from ..actor_cases import (
    ActorCase,
    draw_predicted,
    driving,
    load_actors,
    make_actor_cases,
    perform,
    picture_of,
    predicted_poses,
    through_vae,
)
from ..actor_measure import measure_actor
from ..actor_render import draw_actor_poses, render_actor
from ..actors import ACTIONS, CAMERAS, NUM_FRAMES, PAN_PX, Performance, act_out, actor_caption, other_action
from ..bodies import KINDS, PERSON
from .actor_action import CAMERA
from .table import begin, fill_rows, interval_table, read_results, table_parser

if TYPE_CHECKING:
    from ...act_vae.loading import ACTVAE
    from ...cogvideox.model import CogVideoXI2V
    from ...flexiact.fae import FAE

VALUES = {
    "follow": "joints near", "nearest": "nearest action", "limbs": "limbs' slope", "pan": "camera's slope",
}  # fmt: skip


@dataclass(eq=False)
class Bench:
    """What the rows are made with; each part is made when a row first asks for it."""

    base: CogVideoXI2V
    cases: list[ActorCase]
    weights: Path

    @cached_property
    def act_vae(self) -> ACTVAE:
        """The shipped model from words to poses."""
        from ...act_vae.loading import load_act_vae

        return load_act_vae(self.weights / "act_vae" / "figures.safetensors")

    @cached_property
    def camera(self) -> list[tuple[FAE, float]]:
        """The move of a camera, as it was learned from one clip."""
        return self.learned(shipped.CAMERA_MOVE)

    def learned(self, action: str) -> list[tuple[FAE, float]]:
        """What was learned from one clip of a person, as perform() takes it."""
        from ...flexiact.fae import load_fae

        return [(load_fae(shipped.actor_fae_path(action, self.weights)), 1.0)]

    def act(self, action: Callable[[ActorCase], str]) -> Tensor:
        """Videos without poses in which the cases' actors do what was learned from a person."""
        videos = {}
        for name in {action(case) for case in self.cases}:
            cases = [case for case in self.cases if action(case) == name]
            made = perform(self.base, cases, [driving(case) for case in cases], strength=0.0, faes=self.learned(name))
            videos |= dict(zip(cases, made, strict=True))
        return torch.stack([videos[case] for case in self.cases])

    def of(self, kind: str) -> Bench:
        """The same with as many cases of another kind of body."""
        return replace(self, cases=make_actor_cases(len(self.cases) // len(ACTIONS), kind))

    def make(self, drawn: Callable[[ActorCase], Tensor], words: Callable[[ActorCase], str] | None = None, **how):
        """Videos in which the cases' people follow what is drawn for each."""
        said = None if words is None else [words(case) for case in self.cases]
        return perform(self.base, self.cases, [drawn(case) for case in self.cases], words=said, **how)

    def predicted(self, action: Callable[[ActorCase], str]) -> Tensor:
        """Videos that ACT-VAE's poses for an action drive."""
        return self.make(lambda case: draw_predicted(predicted_poses(case, self.act_vae, action(case))))


def other_word(case: ActorCase) -> str:
    """Another action than the case's."""
    return other_action(case.action)


def other(case: ActorCase) -> Performance:
    """What another clip shows."""
    return act_out(other_word(case))


@cache  # two rows measure them
def follow_other(bench: Bench) -> Tensor:
    """Videos that another clip's poses drive."""
    return bench.make(lambda case: draw_actor_poses(case.actor, other(case)))


def resting(case: ActorCase) -> Tensor:
    """The pose of the picture, drawn, in every frame."""
    return draw_actor_poses(case.actor, act_out(None))


Truth = Callable[[ActorCase], Performance]
Make = Callable[[Bench], Tensor]


def _word(bench: Bench) -> Tensor:
    return bench.make(driving, lambda case: actor_caption(case.actor, case.action), strength=0.0)


def _true(bench: Bench) -> Tensor:
    return through_vae(bench.base, [render_actor(case.actor, case.performance) for case in bench.cases])


def _still(bench: Bench) -> Tensor:
    return torch.stack([picture_of(case.actor).expand(NUM_FRAMES, -1, -1, -1) for case in bench.cases])


@dataclass(frozen=True, eq=False)
class Row:
    """A way to make videos, as the table calls it, what they are measured against, and of which kind of body."""

    label: str
    make: Make
    truth: Truth = lambda case: case.performance
    kind: str = PERSON


ROWS: dict[str, Row] = {
    "pose": Row("driving pose", lambda b: b.make(driving)),
    "other": Row("another clip's pose, against that pose", follow_other, other),
    "wrong": Row("another clip's pose, against its own", follow_other),
    "none": Row("no pose", lambda b: b.make(driving, strength=0.0)),
    "black": Row("an empty drawing as the pose", lambda b: b.make(lambda case: torch.zeros_like(driving(case)))),
    "rest": Row("the picture's pose held", lambda b: b.make(resting)),
    "still": Row("still picture", _still),
    "true": Row("the true video through the VAE", _true),
    "word": Row("no pose, the action's word in the caption", _word),
    "chain": Row("word, ACT-VAE, DynamiCtrl", lambda b: b.predicted(lambda case: case.action)),
    "chain_wrong": Row("the same with another action's word", lambda b: b.predicted(other_word)),
    "camera": Row("camera action alone, the pose held", lambda b: b.make(resting, faes=b.camera)),
    "camera_pose": Row("camera action and driving pose", lambda b: b.make(driving, faes=b.camera)),
}

# What each kind of body does without poses.
ACROSS: dict[str, tuple[str, Make]] = {
    "act": ("the action of a person's clip", lambda b: b.act(lambda case: case.action)),
    "act_wrong": ("another action of a person's clip", lambda b: b.act(other_word)),
    "act_none": ("no action", lambda b: b.make(driving, strength=0.0)),
    "act_word": ("the action's word in the caption", _word),
    "act_still": ("still picture", _still),
    "act_true": ("the true video through the VAE", _true),
}
ROWS |= {
    f"{name}_{kind}": Row(f"{kind}: {label}", make, kind=kind)
    for kind in KINDS
    for name, (label, make) in ACROSS.items()
}


def run_row(bench: Bench, name: str) -> list[dict]:
    """The records of one row: one for each case."""
    row, records = ROWS[name], []
    bench = bench if row.kind == PERSON else bench.of(row.kind)
    videos = row.make(bench)
    pan = CAMERAS[CAMERA] * PAN_PX
    for case, video in zip(bench.cases, videos, strict=True):
        seen = measure_actor(video, case.actor, row.truth(case))
        records.append(
            {
                "action": case.action, "target": case.seed, "seed": case.seed, "follow": round(seen.follow, 4),
                "nearest": float(seen.nearest == case.action), "seen_as": seen.nearest, "limbs": round(seen.limbs, 4),
                "pan": round(seen.pan / pan, 4),
            }
        )  # fmt: skip
    return records


def make_actor_table(results: dict[str, list[dict]]) -> str:
    """The results as markdown, a row for each way, with 95 % intervals over people."""
    return interval_table(results, lambda name: ROWS[name].label, VALUES)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the rows asked for and writes the table."""
    parser = table_parser(__doc__, "evaluation_actors", ROWS)
    parser.add_argument("--people", type=int, default=4, help="for each action")
    chosen = parser.parse_args(arguments)
    base = load_actors(chosen.weights, begin(chosen))
    bench = Bench(base, make_actor_cases(chosen.people), chosen.weights)
    fill_rows(
        chosen, lambda name: run_row(bench, name), lambda: make_actor_table(read_results(chosen.out, ROWS)), "actors.md"
    )


if __name__ == "__main__":
    main()
