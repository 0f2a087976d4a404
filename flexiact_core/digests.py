"""Short names for what files and modules hold: by content, so that what was made from them is known again."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path

import torch

from .errors import FileError

# Of a large file, read at each of 64 places.
DIGEST_BYTES = 1 << 20


def content_digest(path: Path) -> str:
    """A short name for what a file holds; of one above 64 MB for its size and 64 stretches of it, evenly spread.

    Raises FileError if it cannot be read.
    """
    try:
        found = os.stat(path)
        return _content_digest(str(path), found.st_size, found.st_mtime_ns)
    except OSError as error:
        raise FileError(f"{Path(path).name}: this file cannot be read ({error.strerror}). Check the list.") from error


@lru_cache(maxsize=100_000)
def _content_digest(path: str, size: int, _modified: int) -> str:
    contents = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:
        for index in range(64):
            if size > 64 * DIGEST_BYTES:
                file.seek((size - DIGEST_BYTES) * index // 63)
            contents.update(file.read(DIGEST_BYTES))
    return contents.hexdigest()


def module_digest(module: torch.nn.Module) -> str:
    """A short name for the weights of a module: their names, shapes, and some values of each."""
    contents = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        values = tensor.detach().reshape(-1)
        middle = len(values) // 2
        some = torch.cat([values[:64], values[middle : middle + 64], values[-64:]]).float().cpu()
        contents.update(f"{name} {tuple(tensor.shape)}".encode() + some.contiguous().numpy().tobytes())
    return contents.hexdigest()
