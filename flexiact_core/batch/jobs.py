"""Lists of jobs: CSV files whose rows each say what to make, and what is wrong with those that do not.

Columns have names, in any order: system, picture, action, pose, word, prompt, negative_prompt, seed, settings and
reference. Those that a row does not need may be missing or empty. Paths count from the list's folder.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..clip_lists import ListedClip, read_rows
from ..digests import content_digest
from ..errors import FileError, FlexiActError, SettingError

COLUMNS = (
    "system", "picture", "action", "pose", "word", "prompt", "negative_prompt", "seed", "settings", "reference",
)  # fmt: skip
# What a row of each system must have; of a pair in brackets, one.
NEEDED: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "flexiact": (("picture",), ("action",)),
    "dynamictrl": (("picture",), ("pose", "word")),
    "act_vae": (("word",),),
}
_RUN = {"steps": int, "cfg": float, "num_frames": int, "width": int, "height": int, "scheduler": str}
# The settings of each system, and what their values are. A run's own are the base's where they are not set.
SETTINGS: Mapping[str, Mapping[str, type]] = {
    "flexiact": _RUN | {"strength": float, "bias_strength": float, "hold_until": int, "off_below": int,
                        "weighting": str, "refadapter": float},
    "dynamictrl": _RUN | {"pose_strength": float, "pose_start": float, "pose_end": float, "image_scale": str,
                          "frame_rule": str},
    "act_vae": {"steps": int, "temperature": float, "num_frames": int, "fps": float, "chain": int, "width": int,
                "height": int},
}  # fmt: skip
SUFFIXES = {"act_vae": ".json"}
MAX_SEED = 2**63 - 1


@dataclass(frozen=True)
class Job:
    """One file to make. line is where its row stands; group names what it belongs to in tables, kind and action."""

    line: int
    system: str
    picture: Path | None = None
    action: Path | None = None
    pose: Path | None = None
    word: str = ""
    prompt: str = ""
    negative_prompt: str = ""
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    reference: ListedClip | None = None
    group: tuple[str, str] = ("", "")

    @cached_property
    def key(self) -> str:
        """The same for rows that make the same: a digest of all that goes into the file, contents of files included."""
        made_of = [
            self.system, *(path and content_digest(path) for path in (self.picture, self.action, self.pose)), self.word,
            self.prompt, self.negative_prompt, self.seed, sorted(self.settings.items()),
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]

    @property
    def file_name(self) -> str:
        """The name of the file that it makes: what it is of, its seed, and its key."""
        parts = [path.stem for path in (self.picture, self.action, self.pose) if path] + [self.word] * bool(self.word)
        plain = [re.sub(r"[^\w.-]+", "_", part, flags=re.ASCII)[:40] for part in parts]
        return "-".join([*plain, str(self.seed), self.key]) + SUFFIXES.get(self.system, ".mp4")


@dataclass(frozen=True)
class BadRow:
    """A row that makes nothing, and the sentence on why."""

    line: int
    reason: str


def read_jobs(file: Path, actions: Path | None = None) -> tuple[list[Job], list[BadRow]]:
    """The jobs of a list, and its rows that are none. Actions are looked for beside the list, then under `actions`.

    Raises FileError if the list cannot be read, or names a column that there is none of.
    """
    file = Path(file)
    rows = read_rows(file)
    if not rows:
        raise FileError(f"{file.name}: the list is empty. Its first line names columns: {', '.join(COLUMNS)}.")
    names = [name.strip().lower() for name in rows[0][1]]
    unknown = [name for name in names if name not in COLUMNS]
    if unknown or "system" not in names or len(set(names)) < len(names):
        what = f"'{unknown[0]}' is no column" if unknown else "each column once, and 'system' among them, is needed"
        raise FileError(f"{file.name}, line 1: {what}. Columns are {', '.join(COLUMNS)}.")
    find = _Finder(file.absolute().parent, actions)
    jobs: dict[str, Job] = {}
    bad = []
    for line, row in rows[1:]:
        try:
            job = _read_row(line, dict(zip(names, map(str.strip, row))), len(row) - len(names), find)
            if job.key in jobs:
                raise SettingError(f"the same as line {jobs[job.key].line}. Give it another seed, or leave it out.")
            jobs[job.key] = job
        except FlexiActError as error:
            bad.append(BadRow(line, str(error)))
    return list(jobs.values()), bad


def find_action(name: str, actions: Path | None) -> Path | None:
    """The file of an action under a folder, by its path there or by its name alone, with or without what comes after
    the dot; None if there is none."""
    if actions is None:
        return None
    if (actions / name).is_file():
        return actions / name
    files = (file for file in sorted(actions.rglob("*")) if file.suffix in (".safetensors", ".pt") and file.is_file())
    return next((file for file in files if name in (file.name, file.stem)), None)


class _Finder:
    """Where the files of a list lie."""

    def __init__(self, folder: Path, actions: Path | None):
        self.folder, self.actions = folder, actions

    def __call__(self, column: str, name: str) -> Path | None:
        if not name:
            return None
        found = self.folder / name
        if not found.is_file() and column == "action":
            found = find_action(name, self.actions) or found
        if not found.is_file():
            also = " or in the folder of --actions" if column == "action" else ""
            raise FileError(f"{column}: no file '{name}', counted from the list's folder{also}. Correct the path.")
        return found


def _read_row(line: int, cells: Mapping[str, str], too_many: int, find: _Finder) -> Job:
    if too_many > 0:
        raise FileError(f"{too_many} cells more than columns. Put texts with commas in quotes.")
    system = cells.get("system", "").lower()
    if system not in NEEDED:
        raise SettingError(f"system '{system}': choose one of {', '.join(NEEDED)}.")
    for either in NEEDED[system]:
        if sum(bool(cells.get(column)) for column in either) != 1:
            raise SettingError(f"{' or '.join(either)}: {system} needs one.")
    seed = cells.get("seed") or "0"
    if not seed.isascii() or not seed.isdecimal() or int(seed) > MAX_SEED:
        raise SettingError(f"seed '{seed[:40]}': a whole number from 0 on is needed.")
    reference = find("reference", cells.get("reference", ""))
    return Job(
        line, system, *(find(column, cells.get(column, "")) for column in ("picture", "action", "pose")),
        word=cells.get("word", ""), prompt=cells.get("prompt", ""), negative_prompt=cells.get("negative_prompt", ""),
        seed=int(seed), settings=read_settings(system, cells.get("settings", "")),
        reference=None if reference is None else ListedClip(reference, 0.0, 0.0, ""),
    )  # fmt: skip


def read_settings(system: str, text: str) -> dict[str, Any]:
    """Settings from a text such as 'steps=25 cfg=6'. Raises SettingError naming what is possible otherwise."""
    kinds, settings = SETTINGS[system], {}
    for part in text.split():
        name, _, value = part.partition("=")
        try:
            settings[name] = kinds[name](value)
        except KeyError:
            raise SettingError(f"settings: '{name[:40]}' is none of {system}. There are {', '.join(kinds)}.") from None
        except ValueError:
            raise SettingError(f"settings: {name}={value[:40]} is no number. Write {name}=NUMBER.") from None
    return settings

