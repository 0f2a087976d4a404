"""The table of the people's world: how well poses, words and actions act on people that no training saw.

`python -m flexiact_core.world.making.actor_table` makes the videos of each row, measures them, and writes
actors.md, and the records of each row, into a folder. Rows that are there are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
from ..actors import CAMERAS, NUM_FRAMES, PAN_PX, Performance, act_out, actor_caption, other_action
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
        from ...flexiact.fae import load_fae

        return [(load_fae(shipped.camera_path(self.weights)), 1.0)]

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


def _own(case: ActorCase) -> Performance:
    return case.performance


Truth = Callable[[ActorCase], Performance]
# By name: what it is called in the table, what its videos are measured against, and how they are made.
ROWS: dict[str, tuple[str, Truth, Callable[[Bench], Tensor]]] = {
    "pose": ("driving pose", _own, lambda b: b.make(driving)),
    "other": ("another clip's pose, against that pose", other, follow_other),
    "wrong": ("another clip's pose, against its own", _own, follow_other),
    "none": ("no pose", _own, lambda b: b.make(driving, strength=0.0)),
    "black": ("an empty drawing as the pose", _own, lambda b: b.make(lambda case: torch.zeros_like(driving(case)))),
    "rest": ("the picture's pose held", _own, lambda b: b.make(resting)),
    "still": (
        "still picture",
        _own,
        lambda b: torch.stack([picture_of(case.actor).expand(NUM_FRAMES, -1, -1, -1) for case in b.cases]),
    ),
    "true": (
        "the true video through the VAE",
        _own,
        lambda b: through_vae(b.base, [render_actor(case.actor, case.performance) for case in b.cases]),
    ),
    "word": (
        "no pose, the action's word in the caption",
        _own,
        lambda b: b.make(driving, lambda case: actor_caption(case.actor, case.action), strength=0.0),
    ),
    "chain": ("word, ACT-VAE, DynamiCtrl", _own, lambda b: b.predicted(lambda case: case.action)),
    "chain_wrong": ("the same with another action's word", _own, lambda b: b.predicted(other_word)),
    "camera": ("camera action alone, the pose held", _own, lambda b: b.make(resting, faes=b.camera)),
    "camera_pose": ("camera action and driving pose", _own, lambda b: b.make(driving, faes=b.camera)),
}


def run_row(bench: Bench, name: str) -> list[dict]:
    """The records of one row: one for each case."""
    _, truth, make = ROWS[name]
    videos, records = make(bench), []
    pan = CAMERAS[CAMERA] * PAN_PX
    for case, video in zip(bench.cases, videos, strict=True):
        seen = measure_actor(video, case.actor, truth(case))
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
    return interval_table(results, lambda name: ROWS[name][0], VALUES)


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
