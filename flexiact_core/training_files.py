"""Where a training keeps and saves its files, so that it overwrites nothing of others and loses nothing of its own.

Below a root, a training has its checkpoint and a record in training/, and its results in folders of their own. The
record is a small JSON file: which results the training saved, and how large and when, so that it knows them again.
"""

from __future__ import annotations

import contextlib
import glob
import json
import secrets
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .errors import FileError
from .weight_files import read_metadata, write_whole

TRAINING_FOLDER = "training"

# Endings of what trainings save under one name.
RESULT_ENDINGS = (".safetensors", ".pt", ".mp4")

# Some file systems take 143 bytes a name; a checkpoint's temporary file adds 28 to it, a number a few.
MAX_NAME_BYTES = 110

# Names of devices on Windows, whatever their ending.
_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}


def plain_name(name: str) -> str:
    """A file name without ending for what a user typed: letters of any language stay, what a disk may refuse does not.

    Long names are cut to MAX_NAME_BYTES of UTF-8.
    """
    plain = "".join(letter if letter.isalnum() or letter in "-_ ." else "_" for letter in name).strip(" .")
    plain = plain.encode(errors="ignore")[:MAX_NAME_BYTES].decode(errors="ignore").strip(" .") or "action"
    return f"_{plain}" if plain.partition(".")[0].strip().lower() in _RESERVED else plain


def checkpoint_path(root: Path, name: str, training: str) -> Path:
    """Where the checkpoint of a training lies; trainings that differ in any setting have different ones."""
    return Path(root) / TRAINING_FOLDER / f"{plain_name(name)}-{training[:12]}.safetensors"


def result_path(root: Path, folder: str, name: str, training: str) -> Path:
    """Where a training's result is saved: FOLDER/NAME.safetensors, with a number if anything else has that name.

    A name is free if nothing with it and one of RESULT_ENDINGS is there, or all of that is what this training saved.
    """
    stem, number = plain_name(name), 1
    saved = _read_record(_record_path(root, name, training)).get("files", {})
    while True:
        path = Path(root) / folder / f"{stem if number == 1 else f'{stem}_{number}'}.safetensors"
        others = [path.with_name(path.stem + ending) for ending in RESULT_ENDINGS[1:]]
        own = not _taken(path) or _training_of(path) == training
        if own and all(not _taken(other) or _is_noted(other, saved.get(_key(root, other))) for other in others):
            return path
        number += 1


def record_result(root: Path, name: str, training: str, files: Iterable[Path], settings: Mapping[str, Any]) -> None:
    """Notes what a training has saved. settings say which widgets it had, so that is_unfinished() finds it.

    Raises FileError if it cannot be written.
    """
    record = {"name": name, "settings": dict(settings), "files": {_key(root, file): _stamp(file) for file in files}}
    text = json.dumps(record)
    write_whole(_record_path(root, name, training), lambda temporary: Path(temporary).write_text(text))


def is_unfinished(root: Path, name: str, steps: int, settings: Mapping[str, Any]) -> bool:
    """Whether a training of this name and these settings has a checkpoint with fewer than `steps` steps.

    Trainings that noted no settings are told apart by their name alone. Never raises.
    """
    folder = Path(root) / TRAINING_FOLDER
    for path in folder.glob(f"{glob.escape(plain_name(name))}-*.safetensors"):
        try:
            metadata = read_metadata(path)
            done, noted = int(metadata.get("steps_done", 0)), json.loads(metadata.get("settings", "{}"))
        except (FileError, ValueError):
            continue
        if metadata.get("name", name) == name and _agree(noted, settings) and done < steps:
            return True
    return False


def is_lost(root: Path, name: str, settings: Mapping[str, Any]) -> bool:
    """Whether the result that a training of this name and these settings has saved is gone. Never raises."""
    folder = Path(root) / TRAINING_FOLDER
    for path in folder.glob(f"{glob.escape(plain_name(name))}-*.json"):
        record = _read_record(path)
        if record.get("name") == name and _agree(record.get("settings", {}), settings):
            weights = [file for file in record["files"] if file.endswith(".safetensors")]
            if any(not (Path(root) / file).is_file() for file in weights):
                return True
    return False


def check_can_save(folder: Path, num_bytes: int = 0) -> None:
    """Passes if a file of num_bytes can be written into a folder, which is made if it is not there.

    Raises FileError saying what prevents it: to be asked before hours of work, not after.
    """
    folder = Path(folder)
    trial = folder / f".trial-{secrets.token_hex(4)}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial.write_bytes(b"x" * 4096)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise FileError(
            f"{folder.name}: nothing can be saved in this folder ({error.strerror}). Free some disk space or check "
            "that the folder can be written, then run again."
        ) from error
    finally:
        _remove(trial)
    if free < num_bytes:
        raise FileError(
            f"{folder.name}: {num_bytes / 1e6:.1f} MB will be saved in this folder, {free / 1e6:.1f} MB are free. Free "
            "some disk space, then run again."
        )


def _record_path(root: Path, name: str, training: str) -> Path:
    return checkpoint_path(root, name, training).with_suffix(".json")


def _read_record(path: Path) -> dict:
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) and isinstance(record.get("files"), dict) else {}


def _agree(noted, settings: Mapping[str, Any]) -> bool:
    return isinstance(noted, dict) and all(noted.get(key, value) == value for key, value in settings.items())


def _key(root: Path, file: Path) -> str:
    return Path(file).relative_to(root).as_posix()


def _stamp(file: Path) -> list[int] | None:
    try:
        found = Path(file).stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]


def _is_noted(file: Path, stamp) -> bool:
    return stamp is not None and _stamp(file) == stamp


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _taken(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def _training_of(path: Path) -> str | None:
    try:
        return read_metadata(path).get("training")
    except FileError:  # damaged, empty, or a folder: another's
        return None
