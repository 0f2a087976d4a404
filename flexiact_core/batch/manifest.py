"""What a batch has made: a file beside the results, a line of JSON for each job, written as each one ends."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import FileError
from ..weight_files import write_content
from .jobs import Job

FILE = "manifest.jsonl"
PARTS = ".parts"


class Manifest:
    """The manifest of a folder: what is in it is done, whoever was killed meanwhile.

    A line holds key, file, line of the list, seconds, and what made it; or, for a job that failed, error in place of
    file. A last line that was cut off by a power cut counts as not written.
    """

    def __init__(self, folder: Path):
        """Raises FileError if the folder cannot be made or its manifest is another file."""
        self.folder, self.path = Path(folder), Path(folder) / FILE
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            text = self.path.read_bytes() if self.path.is_file() else b""
        except OSError as error:
            raise FileError(f"{self.folder.name}: {error.strerror}. Name a folder that can be written.") from error
        # What comes after the last line's end was never finished.
        whole, _, torn = text.rpartition(b"\n")
        self.records = [_read(self.path, number, line) for number, line in enumerate(whole.splitlines(), 1)]
        if torn:
            write_content(self.path, whole + b"\n" * bool(whole))

    @property
    def done(self) -> Mapping[str, dict[str, Any]]:
        """The records of files that are there, by their job's key."""
        made = {record["key"]: record for record in self.records if "file" in record}
        return {key: record for key, record in made.items() if (self.folder / record["file"]).is_file()}

    def save(self, job: Job, content: bytes, seconds: float, made_with: str) -> Path:
        """Writes a job's file, whole, and after it its line. Raises FileError if the disk is full."""
        # Written where few files are: what writing whole looks for among its neighbours would grow with the batch.
        part = write_content(self.folder / PARTS / job.file_name, content)
        path = part.replace(self.folder / job.file_name)
        self._add(job, {"file": job.file_name, "seconds": round(seconds, 3), "made_with": made_with})
        return path

    def note_failure(self, job: Job, reason: str) -> None:
        """Writes that a job failed, and why; it is tried again when the batch goes on."""
        self._add(job, {"error": reason})

    def _add(self, job: Job, about: dict[str, Any]) -> None:
        record = {"key": job.key, "line": job.line, **about}
        try:
            with self.path.open("ab") as file:
                file.write(json.dumps(record).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise FileError(f"{FILE}: {error.strerror}. Make room, and run the same command again.") from error
        self.records.append(record)


def _read(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
        if isinstance(record, dict) and isinstance(record["key"], str):
            return record
    except (ValueError, KeyError):
        pass
    raise FileError(f"{path.name}, line {number}: this is no manifest of a batch. Name another folder with --out.")
