"""Lists of clips: CSV files as the authors write them.

A row is: path, start frame, end frame, fps, any further columns, caption. Or the file is MiraData's table, whose first
line names its columns: file_path, where the clip was put when it was downloaded and cut, and captions. Paths are looked
for beside the list and in the folders above it, with or without their first part, up to a root that no row can leave: a
list may come from anywhere. For the same reason no message repeats what a file holds.
"""

from __future__ import annotations

import contextlib
import csv
import math
import os
from dataclasses import dataclass
from pathlib import Path

from .downloads import existing_file
from .errors import FileError

# MiraData's table of 42 000 clips has six captions a clip, some hundred MB.
MAX_LIST_BYTES = 256_000_000

# MiraData's columns, as its page names them: the clip's file, and captions of the whole, the fuller first.
FILE_COLUMN = "file_path"
CAPTION_COLUMNS = ("dense_caption", "short_caption")

# Of videos; a frame number above is a mistake, too.
MAX_FPS = 1000.0
MAX_FRAME = 1e9


@dataclass(frozen=True)
class ListedClip:
    """A stretch of a video file: start and duration in seconds, duration 0 is to the end; and what it shows."""

    path: Path
    start: float
    duration: float
    caption: str


def read_clip_list(file: Path, root: Path | None = None) -> list[ListedClip]:
    """The clips of a CSV list, in its order; their videos lie inside `root`.

    Without one, that is the list's own folder; for a list somewhere below a folder named captions, as in the authors'
    data, the folder that holds that one.
    Of MiraData's table each file is a clip as a whole, with its dense caption; lines whose file is not there are left
    out, since many of its videos can no longer be downloaded.
    Raises FileError naming the line if a number cannot be used or a video is not there.
    """
    file = Path(file)
    clips = []
    rows = read_rows(file)
    if rows and FILE_COLUMN in rows[0][1]:
        return _read_table(file, rows, root)
    if rows and len(rows[0][1]) > 1 and not _is_number(rows[0][1][1]):
        del rows[0]  # names of columns
    for number, row in rows:
        start, end, fps = _read_numbers(file, number, row)
        path = find_listed(row[0], file, number, root)
        clips.append(ListedClip(path, start / fps, (end - start) / fps, row[-1].strip()))
    if not clips:
        raise FileError(f"{file.name}: no clip in the list. Each line names one video.")
    return clips


def _read_table(file: Path, rows: list[tuple[int, list[str]]], root: Path | None) -> list[ListedClip]:
    names = rows[0][1]
    captions = [names.index(name) for name in CAPTION_COLUMNS if name in names]
    if not captions:
        raise FileError(f"{file.name}: MiraData's table has a column {CAPTION_COLUMNS[0]}; it is not there. Add it.")
    clips = []
    for number, row in rows[1:]:
        row = row + [""] * (len(names) - len(row))
        with contextlib.suppress(FileError):
            path = find_listed(row[names.index(FILE_COLUMN)], file, number, root)
            clips.append(ListedClip(path, 0.0, 0.0, next((row[at].strip() for at in captions if row[at].strip()), "")))
    if not clips:
        raise FileError(
            f"{file.name}: no file of its column {FILE_COLUMN} is there, beside the table or in a folder above it. Put "
            "the downloaded clips there."
        )
    return clips


def read_rows(file: Path) -> list[tuple[int, list[str]]]:
    """The lines of a CSV file that are not empty, as texts, with their numbers.

    Raises FileError if it is not there, no file, too large, or no CSV in UTF-8.
    """
    file = existing_file(file)
    if file.stat().st_size > MAX_LIST_BYTES:
        raise FileError(f"{file.name}: a list of more than {MAX_LIST_BYTES // 10**6} MB is not read. Split it.")
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.reader(lines)
            return [(reader.line_num, row) for row in reader if row]
    except (OSError, UnicodeError, csv.Error) as error:
        raise FileError(f"{file.name}: this is no list that can be read. Save it as CSV in UTF-8.") from error


def find_listed(listed: str, file: Path, line: int, root: Path | None = None) -> Path:
    """The file that line `line` of the list `file` names, inside root as for read_clip_list().

    Raises FileError if none of that name is there; what lies outside is not looked at.
    """
    folder = Path(os.path.abspath(file)).parent
    root = _own_root(folder) if root is None else Path(os.path.abspath(root))
    path = Path(listed.strip())
    shorter = Path(*path.parts[1:])
    if ".." not in path.parts:
        for place in (folder, *folder.parents) if folder.is_relative_to(root) else ():
            for candidate in (place / path, place / shorter):
                if candidate.is_relative_to(root) and os.path.isfile(candidate):
                    return candidate
            if place == root:
                break
    raise FileError(
        f"{file.name}, line {line}: the file of its first column is not there, beside the list or in a folder above it "
        f"up to '{root.name}'. Correct the path."
    )


def _own_root(folder: Path) -> Path:
    return next((place.parent for place in (folder, *folder.parents) if place.name == "captions"), folder)


def _read_numbers(file: Path, line: int, row: list[str]) -> tuple[float, float, float]:
    where = f"{file.name}, line {line}: "
    if len(row) < 5:
        raise FileError(
            f"{where}path, start frame, end frame, fps, ..., caption expected; {len(row)} columns found. Add what is "
            "missing."
        )
    start, end, fps = (_to_number(text) for text in row[1:4])
    if start is None or end is None or fps is None:
        raise FileError(f"{where}start frame, end frame and fps must be numbers. Correct the columns 2 to 4.")
    if not (0 <= start < end <= MAX_FRAME and 0 < fps <= MAX_FPS):
        raise FileError(
            f"{where}0 <= start frame < end frame and an fps above 0, up to {MAX_FPS:.0f}, are needed. Correct the "
            "columns 2 to 4."
        )
    return start, end, fps


def _is_number(text: str) -> bool:
    """Whether it is meant as a number: nan and inf are."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def _to_number(text: str) -> float | None:
    return float(text) if _is_number(text) and math.isfinite(float(text)) else None
