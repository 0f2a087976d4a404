"""Jobs of the authors' benchmark folder: every action with every picture of its kind that is listed for it.

The layout: captions/<kind>/<action>/crop.csv, the action's clips, whose first is the reference as it was filmed, and
val_image.csv beside it, pictures with their captions.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import FileError, FlexiActError
from ..flexiact.released import find_released_actions, read_released_action
from .jobs import BadRow, Job, find_action


def benchmark_jobs(
    folder: Path, actions: Path | None, seed: int = 0, settings: Mapping[str, Any] | None = None
) -> tuple[list[Job], list[BadRow]]:
    """A FlexiAct job for each action and picture, numbered from 1; and what cannot be made, under its action's number.

    actions is the folder with a file for each action, of the action's name. Raises FileError if `folder` holds no
    action in this layout.
    """
    found = find_released_actions(Path(folder))
    if not found:
        raise FileError(
            f"{Path(folder).name}: no captions/<kind>/<action>/crop.csv in it. Name the authors' benchmark folder, or "
            "a list that ends in .csv."
        )
    jobs: list[Job] = []
    bad = []
    for number, (name, place) in enumerate(sorted(found.items()), 1):
        try:
            jobs += _jobs_of(place, actions, len(jobs) + 1, seed, settings or {})
        except FlexiActError as error:
            bad.append(BadRow(number, f"{name}: {error}"))
    return jobs, bad


def _jobs_of(place: Path, actions: Path | None, first: int, seed: int, settings: Mapping[str, Any]) -> list[Job]:
    released = read_released_action(place)
    action = find_action(released.name, actions)
    if action is None:
        raise FileError(f"no file {released.name}.safetensors or .pt under --actions. Train it, or name another.")
    if not released.targets:
        raise FileError("val_image.csv names no picture. Add a line for each.")
    return [
        Job(
            first + number, "flexiact", picture=picture, action=action, prompt=caption, seed=seed, settings=settings,
            reference=released.clips[0], group=(released.kind, released.name),
        )
        for number, (picture, caption) in enumerate(released.targets)
    ]  # fmt: skip
