"""The table of the small world: how well actions transfer to held-out targets.

`python -m flexiact_core.world.making.table` samples, measures, and writes evaluation.md and
the records of each row. Rows that are there are kept, so several processes can share a
folder. Every number is a mean over targets with a 95 % interval, bootstrapped
over targets.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from ...metrics.statistics import interval, pair_differences
from .. import shipped
from ..actions import ACTIONS, SEEN_ACTIONS, UNSEEN_ACTIONS
from ..cases import (
    SETTINGS,
    WINDOWS,
    Setting,
    World,
    load_world,
    make_cases,
    measure_cases,
    oracle_videos,
    sample_videos,
)
from .adapter_training import FAE_SETTLE_STEPS, learn_action

log = logging.getLogger(__name__)


def run_setting(world: World, setting: Setting, actions: Sequence[str], num_targets: int, num_seeds: int) -> list[dict]:
    """The records of one row of the table."""
    records = []
    for action in actions:
        if action not in setting.actions or (setting.words == "action" and action in UNSEEN_ACTIONS):
            continue
        cases = make_cases(action, setting, num_targets, num_seeds)
        if setting.name.startswith("oracle"):
            # The oracle knows no seeds.
            cases = [case for case in cases if case.seed == 0]
            videos = oracle_videos(world, cases)
        else:
            tokens = world.faes[action] if setting.fae else None
            if setting.learned:
                tokens = learn_action(world.base, action, settle_steps=FAE_SETTLE_STEPS, **dict(setting.learned))
            videos = sample_videos(world, cases, tokens, bias=setting.bias, refadapter=setting.refadapter)
        records += measure_cases(cases, videos)
    return records


COMPARISONS = (
    ("weighted", "none"),
    ("refadapter", "weighted"),
    ("weighted", "uncut"),
    ("weighted", "undebiased"),
    ("far", "far_none"),
    ("far_refadapter", "far"),
    ("posed", "posed_none"),
    ("posed_refadapter", "posed"),
    *((f"{words}_{key}", f"{words}_0") for words in ("plain", "other") for key in WINDOWS if key != "0"),
)

VALUES = ("slope", "accuracy", "colour", "shape", "background", "right_shape", "likeness", "score")
COMPARED = ("slope", "accuracy", "score")


def make_table(results: dict[str, list[dict]]) -> str:
    """The results as markdown: one row per setting and group of actions, then accuracy by action."""
    lines = ["| | actions | videos | " + " | ".join(VALUES) + " |", "|" + "---|" * (len(VALUES) + 3)]
    for key, records in results.items():
        for group, names in (("seen", SEEN_ACTIONS), ("never seen", UNSEEN_ACTIONS)):
            chosen = [record for record in records if record["action"] in names]
            if not chosen:
                continue
            cells = ["{:.3f} ({:.3f} to {:.3f})".format(*interval(chosen, value)) for value in VALUES]
            lines.append(f"| {SETTINGS[key].name} | {group} | {len(chosen)} | " + " | ".join(cells) + " |")
    lines += ["", "Nearest-action accuracy by action:", "", "| | " + " | ".join(ACTIONS) + " |"]
    lines.append("|" + "---|" * (len(ACTIONS) + 1))
    for key, records in results.items():
        cells = []
        for action in ACTIONS:
            chosen = [record["accuracy"] for record in records if record["action"] == action]
            cells.append(f"{np.mean(chosen):.2f}" if chosen else "")
        lines.append(f"| {SETTINGS[key].name} | " + " | ".join(cells) + " |")
    if "none" in results and "oracle" in results:
        lines += ["", "Share of the way from no FAE to the oracle, in slope:", ""]
        for key in results:
            setting = SETTINGS[key]
            if not setting.fae or setting.targets != "held out" or setting.words != "plain":
                continue
            for group, names in (("seen", SEEN_ACTIONS), ("never seen", UNSEEN_ACTIONS)):
                ends = [
                    np.mean([r["slope"] for r in results[k] if r["action"] in names] or [np.nan])
                    for k in ("none", key, "oracle")
                ]
                lines.append(f"- {setting.name}, {group}: {(ends[1] - ends[0]) / (ends[2] - ends[0]):.3f}")
    lines += ["", "Differences on the same targets and seeds (95 % interval over targets):", ""]
    for key, other in COMPARISONS:
        if key in results and other in results:
            for group, names in (("seen", SEEN_ACTIONS), ("never seen", UNSEEN_ACTIONS)):
                pairs = pair_differences(results[key], results[other], names, VALUES)
                if pairs:
                    cells = [f"{v} {{:+.3f}} ({{:+.3f}} to {{:+.3f}})".format(*interval(pairs, v)) for v in COMPARED]
                    lines.append(f"- {SETTINGS[key].name} - {SETTINGS[other].name}, {group}: " + ", ".join(cells))
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the rows asked for and writes the table."""
    parser = table_parser(__doc__, "evaluation", SETTINGS)
    parser.add_argument("--actions", default=",".join(ACTIONS))
    parser.add_argument("--targets", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=1)
    chosen = parser.parse_args(arguments)
    world = load_world(chosen.weights, begin(chosen))

    def run(key: str) -> list[dict]:
        records = run_setting(world, SETTINGS[key], chosen.actions.split(","), chosen.targets, chosen.seeds)
        accuracy, slope = (np.mean([record[name] for record in records]) for name in ("accuracy", "slope"))
        log.info("%s: accuracy %.3f slope %.3f", key, accuracy, slope)
        return records

    fill_rows(chosen, run, lambda: make_table(read_results(chosen.out, SETTINGS)), "evaluation.md")


def table_parser(description: str, out: str, rows: Iterable[str]) -> argparse.ArgumentParser:
    """A parser of the settings that all tables' commands take; `out` is the folder they write if none is said."""
    rows = list(rows)
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--weights", type=Path, default=shipped.WEIGHTS)
    parser.add_argument("--out", type=Path, default=Path(out))
    parser.add_argument("--rows", default=",".join(rows), help="comma separated: " + ", ".join(rows))
    formats = ("float32", "bfloat16")
    parser.add_argument("--dtype", choices=formats, default=formats[0], help="nodes take float32 on a CPU")
    parser.add_argument("--threads", type=int, default=1)
    return parser


def begin(chosen: argparse.Namespace) -> torch.dtype:
    """Sets up a table's process, and gives the number format that models are to be loaded in."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(chosen.threads)
    return getattr(torch, chosen.dtype)


def fill_rows(chosen: argparse.Namespace, run: Callable[[str], list[dict]], make: Callable[[], str], name: str) -> None:
    """Measures the rows asked for that are not in the folder yet, and writes the table, after each, into `name`."""
    chosen.out.mkdir(parents=True, exist_ok=True)
    for key in chosen.rows.split(",") if chosen.rows else ():
        stored, started = chosen.out / f"{key}.json", time.monotonic()
        if not stored.exists():
            write_records(stored, run(key))
            log.info("%s: %.0f s", key, time.monotonic() - started)
            (chosen.out / name).write_text(make())
    text = make()
    (chosen.out / name).write_text(text)
    log.info("%s\n%s", chosen.out / name, text)


def interval_table(results: dict[str, list[dict]], label: Callable[[str], str], values: Mapping[str, str]) -> str:
    """The results as markdown, a row for each way, with 95 % intervals over targets; values are titles by name."""
    lines = [f"| | videos | {' | '.join(values.values())} |", "|" + "---|" * (2 + len(values))]
    for name, records in results.items():
        cells = ["{:.2f} ({:.2f} to {:.2f})".format(*interval(records, value)) for value in values]
        lines.append(f"| {label(name)} | {len(records)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def write_records(file: Path, records: Sequence[dict]) -> None:
    """Writes the records of a row, one a line."""
    file.write_text("[\n" + ",\n".join(json.dumps(record) for record in records) + "\n]\n")


def read_results(folder: Path, rows: Iterable[str]) -> dict[str, list[dict]]:
    """All rows measured so far into a folder, in the order of the table."""
    files = {key: folder / f"{key}.json" for key in rows}
    return {key: json.loads(file.read_text()) for key, file in files.items() if file.exists()}


if __name__ == "__main__":
    main()
