"""Looking through folders of files that anyone may have put there. Nothing here raises."""

from __future__ import annotations

import os
import stat
from collections.abc import Container, Iterator
from pathlib import Path

from . import weight_files

# What was found in weight files: by path and words, when and how large the file was, and the answer. A list asks for
# all of its files each time, so none may be forgotten for another's sake.
_looked_into: dict[tuple[str, bytes], tuple[tuple[int, int] | None, bool]] = {}


def walk_files(root: Path, leave_out: Container[str] = ()) -> Iterator[tuple[Path, list[str], list[Path]]]:
    """Each folder under `root`, itself first, with the names of its subfolders and its files, both sorted.

    Subfolders removed from the list given are not entered; those of `root` that leave_out names are not in it. Links
    are followed, each folder is entered once, and what starts with a dot is left out; so are pipes, devices, folders
    named like files where files are listed, and names that no text can hold. A link to nothing is among the files:
    opening it says what is wrong.
    """
    root, entered = Path(root), set()
    for folder, subfolders, names in os.walk(root, followlinks=True):
        here = _identity(folder)
        if here is None or here in entered:
            subfolders.clear()
            continue
        entered.add(here)
        at_root = len(entered) == 1
        subfolders[:] = sorted(
            name for name in subfolders if _is_shown(name) and not (at_root and name in leave_out)
        )  # fmt: skip
        files = [os.path.join(folder, name) for name in sorted(names) if _is_shown(name)]
        yield Path(folder), subfolders, [Path(file) for file in files if _is_file(file)]


def mentions(path: Path, words: bytes) -> bool:
    """As weight_files.mentions(), remembered until the file's time or size changes."""
    try:
        found = os.stat(path)
        stamp = found.st_mtime_ns, found.st_size
    except (OSError, ValueError):
        stamp = None
    key = os.fspath(path), words
    if key not in _looked_into or _looked_into[key][0] != stamp:
        _looked_into[key] = stamp, weight_files.mentions(path, words)
    return _looked_into[key][1]


def _is_shown(name: str) -> bool:
    if name.startswith("."):
        return False
    try:
        name.encode()
    except UnicodeEncodeError:  # bytes that are no text: no browser could send such a name back
        return False
    return True


def _identity(folder: str) -> tuple[int, int] | None:
    try:
        found = os.stat(folder)
    except OSError:
        return None
    # Windows gives no numbers for some drives.
    return (found.st_dev, found.st_ino) if found.st_ino else (0, hash(os.path.realpath(folder)))


def _is_file(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return os.path.islink(path)
