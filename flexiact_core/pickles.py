"""Pickled tables of tensors, read so that no code runs and no small file fills the memory."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from .downloads import guarded
from .errors import FileError

PICKLE_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin")

# Of what a pickle says of itself, so much is looked at.
MAX_PICKLED_BYTES = 8_000_000
# So much may views of few stored numbers take once they are used.
MAX_VIEWED_BYTES = 256_000_000


def read_pickle(path: Path, mapped: bool = False, max_bytes: int | None = None) -> Any:
    """What a .pt, .pth, .ckpt or .bin file holds, on the CPU, opened with weights_only=True.

    mapped leaves the tensors of a zipped one in the file. Raises FileError for other endings, for files that are
    damaged, packed or ask to run code, and for those of the format before torch 1.6 that are larger than max_bytes.
    """
    if path.suffix not in PICKLE_SUFFIXES:
        raise FileError(f"{path.name}: '{path.suffix}' files are not read here. Use a .safetensors or .pt file.")
    is_zip, size = guarded(path, lambda: zipfile.is_zipfile(path)), path.stat().st_size
    if not is_zip and max_bytes is not None and size > max_bytes:
        raise FileError(
            f"{path.name}: this file of {size / 1e9:.1f} GB is in the format of old PyTorch versions, which is read as "
            f"a whole, and only {max_bytes / 1e9:.1f} GB of memory are free. Close other programs, or save the file "
            "anew with a newer PyTorch."
        )
    if is_zip and guarded(path, lambda: _unpacked_bytes(path)) > size:
        raise FileError(f"{path.name}: a packed archive, which weight files never are. Get it again from its authors.")
    try:
        return guarded(path, lambda: torch.load(path, map_location="cpu", weights_only=True, mmap=mapped and is_zip))
    except FileError as error:
        if isinstance(error.__cause__, pickle.UnpicklingError):
            raise FileError(
                f"{path.name}: this file asks to run code while it is opened, or is no weight file, and was not "
                "loaded. Get the file again from its authors, or a .safetensors version of it."
            ) from error.__cause__
        raise


def check_tensors(path: Path, content: Any) -> dict[str, Tensor]:
    """The content of a pickle, if it is a table of plain named tensors. Raises FileError otherwise.

    Also if its tensors would take much more memory than the file has: views can say that one number fills gigabytes.
    """
    if not isinstance(content, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    ):
        raise FileError(
            f"{path.name}: a table of named tensors was expected, {type(content).__name__} found. "
            "Use the file that holds the weights alone."
        )
    for key, value in content.items():
        plain = value.layout is torch.strided and value.device.type == "cpu" and not value.is_quantized
        if not plain or value.dtype.is_complex:
            raise FileError(f"{path.name}: {key[:100]} is no plain table of numbers. Get a .safetensors version.")
    said, stored = sum(value.numel() * value.element_size() for value in content.values()), path.stat().st_size
    if said > max(MAX_VIEWED_BYTES, stored):
        raise FileError(
            f"{path.name}: its tensors would take {said / 1e9:.1f} GB, and the file has {stored / 1e9:.1f}. "
            "Get it again from its authors."
        )
    return {key: value.detach() for key, value in content.items()}


def pickles_in(file: BinaryIO) -> Iterable[bytes]:
    """What the tables of contents of a zipped pickle begin with."""
    with zipfile.ZipFile(file) as archive:
        for name in archive.namelist():
            if name.endswith("data.pkl"):
                with archive.open(name) as packed:
                    yield packed.read(MAX_PICKLED_BYTES)


def _unpacked_bytes(path: Path) -> int:
    with zipfile.ZipFile(path) as archive:
        return sum(entry.file_size for entry in archive.infolist())
