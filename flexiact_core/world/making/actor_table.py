"""The table of the people's world: how well poses, words and actions act on people that no training saw.

`python -m flexiact_core.world.making.actor_table` makes the videos of each row, measures them, and writes
actors.md, and the records of each row, into a folder. Rows that are there are kept.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...metrics.statistics import interval
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
from ..actors import CAMERAS, NUM_FRAMES, PAN_PX, Performance, act_out, actor_caption
from .actor_action import CAMERA, learn_camera
from .hogwild import faster_format
from .table import read_results, write_records

if TYPE_CHECKING:
    from ...act_vae.loading import ACTVAE
    from ...cogvideox.model import CogVideoXI2V
    from ...flexiact.fae import FAE

log = logging.getLogger(__name__)

VALUES = ("follow", "nearest", "limbs", "pan")


@dataclass
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
        """The action of a camera, learned from one clip."""
        return [(learn_camera(self.base), 1.0)]

    def make(self, drawn: Callable[[ActorCase], Tensor], words: Callable[[ActorCase], str] | None = None, **how):
        """Videos in which the cases' people follow what is drawn for each."""
        said = None if words is None else [words(case) for case in self.cases]
        return perform(self.base, self.cases, [drawn(case) for case in self.cases], words=said, **how)

    def predicted(self, action: Callable[[ActorCase], str]) -> Tensor:
        """Videos that ACT-VAE's poses for an action drive."""
        return self.make(lambda case: draw_predicted(predicted_poses(case, self.act_vae, action(case))))


def other_word(case: ActorCase) -> str:
    """Another action than the case's: some places further on in the list."""
    from ...act_vae.figures import ACTIONS

    names = list(ACTIONS)
    return names[(names.index(case.action) + 4) % len(names)]


def other(case: ActorCase) -> Performance:
    """What another clip shows."""
    return act_out(other_word(case))


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
    lines = ["| | videos | joints near | nearest action | limbs' slope | camera's slope |", "|" + "---|" * 6]
    for name, records in results.items():
        cells = ["{:.2f} ({:.2f} to {:.2f})".format(*interval(records, value)) for value in VALUES]
        lines.append(f"| {ROWS[name][0]} | {len(records)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the rows asked for and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=shipped.WEIGHTS)
    parser.add_argument("--out", type=Path, default=Path("evaluation_actors"))
    parser.add_argument("--rows", default=",".join(ROWS), help="comma separated: " + ", ".join(ROWS))
    parser.add_argument("--people", type=int, default=4, help="for each action")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="what this machine is faster in, if not said")
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(chosen.threads)
    base = load_actors(chosen.weights, getattr(torch, chosen.dtype) if chosen.dtype else faster_format())
    bench = Bench(base, make_actor_cases(chosen.people), chosen.weights)
    chosen.out.mkdir(parents=True, exist_ok=True)
    for name in chosen.rows.split(","):
        stored, started = chosen.out / f"{name}.json", time.monotonic()
        if not stored.exists():
            records = run_row(bench, name)
            write_records(stored, records)
            log.info("%s: %.0f s", name, time.monotonic() - started)
    table = make_actor_table(read_results(chosen.out, ROWS))
    (chosen.out / "actors.md").write_text(table)
    log.info("%s\n%s", chosen.out / "actors.md", table)


if __name__ == "__main__":
    main()
