"""The authors' lists, such as testing_pair_penn5.txt: a line for each clip of six frames, 188 fields."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from ..clip_lists import MAX_LIST_BYTES
from ..downloads import existing_file
from ..errors import FileError, why
from .model import NUM_JOINTS

NUM_FIELDS = 188
NUM_TARGETS = 5
# Numbers of actions count up from 0; Penn Action has 15.
MAX_ACTIONS = 1000


@dataclass(frozen=True, eq=False)
class ListRow:
    """One clip: six picture paths as the authors had them, source first; its action; joints and boxes in pixels.

    poses (6, 13, 2) begin with the source's; box (4,) is the one that all six are cut to, people (5, 4) are the boxes
    of the person in the five targets.
    """

    images: tuple[str, ...]
    name: str
    action: int
    box: Tensor
    people: Tensor
    poses: Tensor

    @property
    def video(self) -> str:
        """The name of the folder that the pictures lie in."""
        return PurePosixPath(self.images[0].replace("\\", "/")).parent.name


def read_rows(path: Path) -> list[ListRow]:
    """The rows of a list. Raises FileError naming the line that cannot be read."""
    path = existing_file(Path(path))
    if path.stat().st_size > MAX_LIST_BYTES:
        raise FileError(f"{path.name}: a list of more than {MAX_LIST_BYTES // 10**6} MB is not read. Split it.")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(
            f"{path.name}: this list cannot be read ({why(error)}). Give the authors' text file."
        ) from error
    rows = [_read_row(line, f"{path.name}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise FileError(f"{path.name}: no line in it. Give the authors' text file.")
    return rows


def find_image(root: Path, listed: str) -> Path:
    """Where a picture of a list lies under `root`: by as much of the end of its path as is there.

    Raises FileError if no part of it is.
    """
    parts = PurePosixPath(listed.strip().replace("\\", "/")).parts
    for start in range(len(parts)):
        candidate = root.joinpath(*(part for part in parts[start:] if part not in ("/", "..")))
        if os.path.isfile(candidate):
            return candidate
    raise FileError(
        f"{root.name}: a picture of the list is not in this folder. Give the folder that holds Penn Action's "
        "frames/NNNN/NNNNNN.jpg."
    )


def _read_row(line: str, where: str) -> ListRow:
    fields = [field.strip() for field in line.split(",")]
    if len(fields) != NUM_FIELDS:
        raise FileError(f"{where}: {NUM_FIELDS} fields expected, {len(fields)} found. Give the authors' text file.")
    try:
        action = int(float(fields[7]))
        numbers = torch.tensor([float(field) for field in fields[8:]])
    except (ValueError, OverflowError) as error:
        raise FileError(f"{where}: a word where a number is expected. Give the authors' text file.") from error
    box, people, targets, source = numbers.split([4, 20, NUM_TARGETS * 2 * NUM_JOINTS, 2 * NUM_JOINTS])
    if not torch.isfinite(numbers).all() or not 0 <= action < MAX_ACTIONS or not (box[2:] > box[:2]).all():
        raise FileError(f"{where}: a box without an inside, or a number out of range. Take the line out.")
    poses = torch.cat([source, targets]).view(1 + NUM_TARGETS, NUM_JOINTS, 2)
    return ListRow(tuple(fields[:6]), fields[6], action, box, people.view(NUM_TARGETS, 4), poses)
