"""The table of the small AMG: how well videos follow their avatars and scenes, of people that no training saw.

`python -m flexiact_core.world.making.amg_table` makes the videos of each row, measures them, and writes amg.md, the
records of each row, and a sheet of pictures, into a folder. Rows that are there are kept.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...plots import tile_videos
from ..take_cases import CFG, STEPS, TakeCase, film_takes, load_small_amg, make_take_cases, takes_through_vae
from ..take_measure import measure_take
from ..takes import Take, render_avatar, render_take, take_caption
from .table import begin, fill_rows, interval_table, read_results, table_parser

if TYPE_CHECKING:
    from ...amg.model import AMG

VALUES = {
    "overlap": "outline's overlap", "camera": "another camera's outline overlaps less by", "scene": "scene named right",
}  # fmt: skip
SHEET_CASES = 8


@dataclass(frozen=True, eq=False)
class Bench:
    """What the rows are made with."""

    amg: AMG
    cases: list[TakeCase]
    steps: int
    cfg: float

    def make(self, avatar: Callable[[TakeCase], Tensor], scene: Callable[[TakeCase], str | None]) -> Tensor:
        """Videos (N, T, 64, 64, 3) of the cases' people by an avatar for each, before a scene for each."""
        captions = [take_caption(case.take, scene(case)) for case in self.cases]
        seeds = [case.seed for case in self.cases]
        avatars = [avatar(case) for case in self.cases]
        return film_takes(self.amg, avatars, captions, seeds, steps=self.steps, cfg=self.cfg)


def _own(case: TakeCase) -> Take:
    return case.take


def _avatar(case: TakeCase) -> Tensor:
    return render_avatar(case.take)


def _named(case: TakeCase) -> str:
    return case.take.scene


# Two rows measure what each of these makes.
@cache
def _by_motion(bench: Bench) -> Tensor:
    return bench.make(lambda case: render_avatar(case.other_motion()), _named)


@cache
def _by_scene(bench: Bench) -> Tensor:
    return bench.make(_avatar, TakeCase.other_scene)


Truth = Callable[[TakeCase], Take]
Scene = Callable[[TakeCase], str]
# By name: what it is called, whose outline and which scene its videos are measured against, and how they are made.
ROWS: dict[str, tuple[str, Truth, Scene, Callable[[Bench], Tensor]]] = {
    "avatar": ("avatar and caption", _own, _named, lambda b: b.make(_avatar, _named)),
    "other_camera": (
        "another camera's avatar, against that camera",
        TakeCase.by_other_camera,
        _named,
        lambda b: b.make(lambda case: render_avatar(case.by_other_camera()), _named),
    ),
    "other_motion": ("another motion's avatar, against that motion", TakeCase.other_motion, _named, _by_motion),
    "wrong_motion": ("another motion's avatar, against the case's own", _own, _named, _by_motion),
    "no_avatar": (
        "no avatar: black frames",
        _own,
        _named,
        lambda b: b.make(lambda case: torch.zeros_like(_avatar(case)), _named),
    ),
    "other_scene": ("another scene's word, against that scene", _own, TakeCase.other_scene, _by_scene),
    "wrong_scene": ("another scene's word, against the case's own", _own, _named, _by_scene),
    "vae": (
        "the true video through the VAE",
        _own,
        _named,
        lambda b: takes_through_vae(b.amg, [render_take(case.take) for case in b.cases]),
    ),
    "true": ("the true video", _own, _named, lambda b: torch.stack([render_take(case.take) for case in b.cases])),
    "render": ("the avatar's frames themselves", _own, _named, lambda b: torch.stack(list(map(_avatar, b.cases)))),
}


def run_row(bench: Bench, name: str) -> tuple[list[dict], Tensor]:
    """The records of one row, one for each case, and its videos (N, T, 64, 64, 3)."""
    _, truth, scene, make = ROWS[name]
    videos, records = make(bench), []
    for case, video in zip(bench.cases, videos, strict=True):
        seen = measure_take(video, truth(case))
        elsewhere = measure_take(video, case.by_other_camera())
        records.append(
            {
                "action": case.action, "target": case.seed, "seed": case.seed, "camera_name": case.camera,
                "overlap": round(seen.overlap, 4), "camera": round(seen.overlap - elsewhere.overlap, 4),
                "scene": float(seen.scene == scene(case)), "seen_as": seen.scene,
            }
        )  # fmt: skip
    return records, videos


def make_amg_table(results: dict[str, list[dict]]) -> str:
    """The results as markdown, a row for each way, with 95 % intervals over people."""
    return interval_table(results, lambda name: ROWS[name][0], VALUES)


def draw_sheet(cases: Sequence[TakeCase], videos: Tensor) -> Tensor:
    """A picture (H, W, 3) in 0..1 of the first cases: avatar, true video, the video made."""
    rows = []
    for case, video in zip(cases[:SHEET_CASES], videos):
        rows += [render_avatar(case.take), render_take(case.take), video.clamp(0, 1)]
    return tile_videos(rows, frames_each=8, side_px=64)[0]


def make_parser() -> argparse.ArgumentParser:
    """The settings that the command takes."""
    parser = table_parser(__doc__, "evaluation_amg", ROWS)
    parser.add_argument("--cases", type=int, default=45)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--cfg", type=float, default=CFG)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the rows asked for and writes the table."""
    from torchvision.io import write_png

    chosen = make_parser().parse_args(arguments)
    amg = load_small_amg(chosen.weights, begin(chosen))
    bench = Bench(amg, make_take_cases(chosen.cases), chosen.steps, chosen.cfg)

    def run(name: str) -> list[dict]:
        records, videos = run_row(bench, name)
        sheet = draw_sheet(bench.cases, videos)
        write_png((sheet * 255).round().byte().permute(2, 0, 1).contiguous(), str(chosen.out / f"{name}.png"))
        return records

    fill_rows(chosen, run, lambda: make_amg_table(read_results(chosen.out, ROWS)), "amg.md")


if __name__ == "__main__":
    main()
