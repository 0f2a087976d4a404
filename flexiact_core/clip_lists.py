"""Lists of clips: CSV files as the authors write them.

A row is: path, start frame, end frame, fps, any further columns, caption. Paths are looked for beside the list and in
the folders above it, with or without their first part.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from .errors import FileError


@dataclass(frozen=True)
class ListedClip:
    """A stretch of a video file: start and duration in seconds, duration 0 is to the end; and what it shows."""

    path: Path
    start: float
    duration: float
    caption: str


def read_clip_list(file: Path) -> list[ListedClip]:
    """The clips of a CSV list, in its order.

    Raises FileError naming the line if a number cannot be read or a video is not there.
    """
    file = Path(file)
    clips = []
    for number, row in enumerate(read_rows(file), start=1):
        if number == 1 and len(row) > 1 and not _is_number(row[1]):
            continue
        if len(row) < 5 or not all(map(_is_number, row[1:4])) or float(row[3]) <= 0:
            raise FileError(
                f"{file.name}, line {number}: path, start frame, end frame, fps, ..., caption expected; "
                f"{row[:5]} found."
            )
        start, end, fps = map(float, row[1:4])
        clips.append(
            ListedClip(find_listed(row[0], file, number), start / fps, max(0.0, end - start) / fps, row[-1].strip())
        )
    if not clips:
        raise FileError(f"{file.name}: no clip in the list. Each line names one video.")
    return clips


def read_rows(file: Path) -> list[list[str]]:
    """The lines of a CSV file that are not empty, as texts. Raises FileError if it cannot be read."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            return [row for row in csv.reader(lines) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FileError(f"{file.name}: this list cannot be read ({error}). Save it as CSV in UTF-8.") from error


def find_listed(listed: str, file: Path, line: int) -> Path:
    """The file that line `line` of the list `file` names. Raises FileError if it is not there."""
    path = Path(listed.strip())
    shorter = Path(*path.parts[1:])
    for folder in file.absolute().parents:
        for candidate in (folder / path, folder / shorter):
            if candidate.is_file():
                return candidate
    raise FileError(
        f"{file.name}, line {line}: {listed} is not there, beside the list or in a folder above it. Correct the path."
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
