"""What stands in a file's place when a download went wrong, and the sentence that says so."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from .errors import FileError

# Endings that downloaders give to what they have not finished; aria2 keeps a list beside a file of full length.
UNFINISHED = (".incomplete", ".part", ".partial", ".crdownload", ".download", ".tmp", ".aria2")

_LOOKED_AT = 512
_LFS = b"version https://git-lfs"
_WEB = (b"<!doctype html", b"<html", b"<?xml", b"<head")


def existing_file(path: Path, name: str = "") -> Path:
    """`path`, if a file lies there that was fetched as far as its first bytes tell.

    name is what it is called in sentences, by default the file's own name.
    Raises FileError naming what lies there instead: nothing, a link to nothing, a folder, a pipe or device, an
    empty or unfinished file, a Git LFS pointer, a web page.
    """
    path = Path(path)
    name = name or path.name
    try:
        found = path.stat()
    except (OSError, ValueError):
        raise FileError(f"{name}: {_why_missing(path)}") from None
    if stat.S_ISDIR(found.st_mode):
        raise FileError(f"{name}: this is a folder, where a file was expected. Choose the file in it.")
    if not stat.S_ISREG(found.st_mode):
        raise FileError(f"{name}: this is a pipe or a device, no file. Put the file itself there.")
    if found.st_size == 0:
        raise FileError(f"{name}: the file is empty. Download it again.")
    if unfinished := find_unfinished(path):
        raise FileError(f"{name}: {_unfinished(unfinished)}")
    if mistaken := _what_it_is(path):
        raise FileError(f"{name}: {mistaken}")
    return path


def guarded(path: Path, read: Callable, name: str = ""):
    """What `read` gives. A damaged file makes libraries raise all sorts of things: FileError for each of them.

    The sentence never repeats theirs, which may hold a part of the file, or its place.
    """
    name = name or path.name
    try:
        return read()
    except FileError:
        raise
    except MemoryError as error:
        raise FileError(f"{name}: there is not enough memory to read it. Close other programs.") from error
    except Exception as error:
        why = f" ({error.strerror})" if isinstance(error, OSError) and error.strerror else ""
        raise FileError(f"{name}: the file is damaged or cut short{why}. Download it again.") from error


def find_unfinished(path: Path) -> Path | None:
    """What a downloader keeps while the file `path` is not finished; None if there is nothing of the kind.

    A star in the name stands for any file.
    """
    if os.path.exists(path):
        # A whole file may have been fetched after another try was given up; aria2 alone writes into it.
        beside = path.with_name(path.name + ".aria2")
        return beside if os.path.isfile(beside) else None
    stem = path.name.partition("*")[0]
    beside = [file for file in _entries(path.parent) if file.name.startswith(stem) and file.name.endswith(UNFINISHED)]
    if "*" not in path.name:
        beside = [file for file in beside if file.name.removesuffix(file.suffix) == path.name]
    return next((file for file in [*beside, *_hub_leftovers(path)] if os.path.isfile(file)), None)


def _hub_leftovers(path: Path) -> list[Path]:
    """What `hf download` keeps for any file of this one's folder that is not finished; names tell no more."""
    roots = [path.parent, path.parent.parent]
    # With --local-dir in a folder of its own; else in its cache, where snapshots/COMMIT holds links to blobs.
    kept = [root / ".cache" / "huggingface" / "download" / path.parent.relative_to(root) for root in roots]
    kept += [root.parent.parent / "blobs" for root in roots if root.parent.name == "snapshots"]
    return [file for folder in kept for file in _entries(folder) if file.name.endswith(".incomplete")]


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _why_missing(path: Path) -> str:
    if os.path.islink(path):
        return (
            "this is a link to a file that is not there (a drive that is not connected, or a cache that was cleaned). "
            "Fetch the file again."
        )
    if unfinished := find_unfinished(path):
        return _unfinished(unfinished)
    return f"no such file in {path.parent.name}. Put it there and refresh the list."


def _unfinished(unfinished: Path) -> str:
    return (
        f"its download is not finished ({unfinished.name} lies there). Start the download again; it goes on where it "
        "stopped."
    )


def _what_it_is(path: Path) -> str:
    try:
        with path.open("rb") as file:
            head = file.read(_LOOKED_AT)
    except OSError as error:
        return f"the file cannot be opened ({error.strerror}). Check that ComfyUI may read it."
    if head.startswith(_LFS):
        return (
            "this is a Git LFS pointer, a few lines of text in the file's place; the file itself was not fetched. Run "
            "'git lfs pull' in the folder it was cloned to, or download the file."
        )
    if head.lstrip(b"\xef\xbb\xbf \r\n\t").lower().startswith(_WEB):
        return (
            "this is a web page, saved in the file's place (often a login or error page). Download the file itself "
            "again."
        )
    return ""
