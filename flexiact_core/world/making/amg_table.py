"""The table of the small AMG: how well videos follow their avatars and scenes, of people that no training saw.

`python -m flexiact_core.world.making.amg_table` makes the videos of each row, measures them, and writes amg.md, the
records of each row, and a sheet of pictures, into a folder. Rows that are there are kept.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...metrics.statistics import interval
from ...plots import tile_videos
from .. import shipped
from ..take_cases import CFG, STEPS, TakeCase, film_takes, load_small_amg, make_take_cases, takes_through_vae
from ..take_measure import measure_take
from ..takes import Take, render_avatar, render_take, take_caption
from .hogwild import faster_format
from .table import read_results, write_records

if TYPE_CHECKING:
    from ...amg.model import AMG

log = logging.getLogger(__name__)

VALUES = ("overlap", "camera", "scene")
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


def _by_motion(bench: Bench) -> Tensor:
    return bench.make(lambda case: render_avatar(case.other_motion()), _named)


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
    "other_scene": (
        "another scene's word, against that scene",
        _own,
        TakeCase.other_scene,
        lambda b: b.make(_avatar, TakeCase.other_scene),
    ),
    "wrong_scene": (
        "another scene's word, against the case's own",
        _own,
        _named,
        lambda b: b.make(_avatar, TakeCase.other_scene),
    ),
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
    head = ["", "videos", "outline's overlap", "another camera's outline overlaps less by", "scene named right"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, records in results.items():
        cells = ["{:.2f} ({:.2f} to {:.2f})".format(*interval(records, value)) for value in VALUES]
        lines.append(f"| {ROWS[name][0]} | {len(records)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def draw_sheet(cases: Sequence[TakeCase], videos: Tensor) -> Tensor:
    """A picture (H, W, 3) in 0..1 of the first cases: avatar, true video, the video made."""
    rows = []
    for case, video in zip(cases[:SHEET_CASES], videos):
        rows += [render_avatar(case.take), render_take(case.take), video.clamp(0, 1)]
    return tile_videos(rows, frames_each=8, side_px=64)[0]


def make_parser() -> argparse.ArgumentParser:
    """The settings that the command takes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=shipped.WEIGHTS)
    parser.add_argument("--out", type=Path, default=Path("evaluation_amg"))
    parser.add_argument("--rows", default=",".join(ROWS), help="comma separated: " + ", ".join(ROWS))
    parser.add_argument("--cases", type=int, default=45)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--cfg", type=float, default=CFG)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="what this machine is faster in, if not said")
    parser.add_argument("--threads", type=int, default=1)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the rows asked for and writes the table."""
    from torchvision.io import write_png

    chosen = make_parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(chosen.threads)
    amg = load_small_amg(chosen.weights, getattr(torch, chosen.dtype) if chosen.dtype else faster_format())
    bench = Bench(amg, make_take_cases(chosen.cases), chosen.steps, chosen.cfg)
    chosen.out.mkdir(parents=True, exist_ok=True)
    for name in chosen.rows.split(","):
        stored, started = chosen.out / f"{name}.json", time.monotonic()
        if not stored.exists():
            records, videos = run_row(bench, name)
            sheet = draw_sheet(bench.cases, videos)
            write_png((sheet * 255).round().byte().permute(2, 0, 1).contiguous(), str(chosen.out / f"{name}.png"))
            write_records(stored, records)
            log.info("%s: %.0f s", name, time.monotonic() - started)
    table = make_amg_table(read_results(chosen.out, ROWS))
    (chosen.out / "amg.md").write_text(table)
    log.info("%s\n%s", chosen.out / "amg.md", table)


if __name__ == "__main__":
    main()
