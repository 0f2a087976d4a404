"""What stands in a file's place when a download went wrong, and the sentence that says so."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

from .errors import FileError

# Endings that downloaders give to what they have not finished; aria2 keeps a list beside a file of full length.
UNFINISHED = (".incomplete", ".part", ".partial", ".crdownload", ".download", ".tmp", ".aria2")

_LOOKED_AT = 512
_LFS = b"version https://git-lfs"
_WEB = (b"<!doctype html", b"<html", b"<?xml", b"<head")


def existing_file(path: Path) -> Path:
    """`path`, if a file lies there that was fetched as far as its first bytes tell.

    Raises FileError naming what lies there instead: nothing, a link to nothing, a folder, a pipe or device, an
    empty or unfinished file, a Git LFS pointer, a web page.
    """
    path = Path(path)
    try:
        found = path.stat()
    except (OSError, ValueError):
        raise FileError(_why_missing(path)) from None
    if stat.S_ISDIR(found.st_mode):
        raise FileError(f"{path.name}: this is a folder, where a file was expected. Choose the file in it.")
    if not stat.S_ISREG(found.st_mode):
        raise FileError(f"{path.name}: this is a pipe or a device, no file. Put the file itself there.")
    if found.st_size == 0:
        raise FileError(f"{path.name}: the file is empty. Download it again.")
    if unfinished := find_unfinished(path):
        raise FileError(_unfinished(path.name, unfinished))
    if mistaken := _what_it_is(path):
        raise FileError(f"{path.name}: {mistaken}")
    return path


def guarded(path: Path, read: Callable):
    """What `read` gives. A damaged file makes the libraries raise all sorts of things: FileError for each of them."""
    try:
        return read()
    except FileError:
        raise
    except MemoryError as error:
        raise FileError(f"{path.name}: there is not enough memory to read it. Close other programs.") from error
    except Exception as error:
        why = f" ({error.strerror})" if isinstance(error, OSError) and error.strerror else ""
        raise FileError(f"{path.name}: the file is damaged or cut short{why}. Download it again.") from error


def find_unfinished(path: Path) -> Path | None:
    """What a downloader keeps while the file `path` is not finished; None if there is nothing of the kind."""
    candidates = [path.with_name(path.name + ending) for ending in UNFINISHED]
    if path.exists():
        # A whole file may have been fetched after another try was given up; aria2 alone writes into it.
        candidates = [path.with_name(path.name + ".aria2")]
    elif path.parent.is_dir():
        # `hf download --local-dir` keeps them in a folder of its own, under the name with a hash after it.
        for root in (path.parent, path.parent.parent):
            kept = root / ".cache" / "huggingface" / "download"
            inside = kept / path.parent.relative_to(root)
            candidates += [file for file in _entries(inside) if _is_unfinished(file, path.name)]
    return next((file for file in candidates if file.is_file()), None)


def _is_unfinished(file: Path, name: str) -> bool:
    # Newer versions leave the name away where it is long, and keep its hash alone: then any of them may be it.
    return file.name.endswith(".incomplete") and (file.name.startswith(name) or "." not in file.stem.rstrip("."))


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _why_missing(path: Path) -> str:
    if path.is_symlink():
        return (
            f"{path.name}: this is a link to a file that is not there (a drive that is not connected, or a cache that "
            "was cleaned). Fetch the file again."
        )
    if unfinished := find_unfinished(path):
        return _unfinished(path.name, unfinished)
    return f"{path.name}: no such file in {path.parent.name}. Put it there and refresh the list."


def _unfinished(name: str, unfinished: Path) -> str:
    return (
        f"{name}: its download is not finished ({unfinished.name} lies there). Start the download again; it goes on "
        "where it stopped."
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
