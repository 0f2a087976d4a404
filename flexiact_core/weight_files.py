"""Reading and writing of weight files: safe to open, strict in their keys, whole or not written at all."""

from __future__ import annotations

import os
import pickle
import secrets
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .errors import FileError

MAX_HEADER_BYTES = 100_000_000
PICKLE_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin")


def read_tensors(path: Path, inside: Sequence[str] = (), max_bytes: int | None = None) -> dict[str, Tensor]:
    """All tensors of a weight file by name, on the CPU, in the dtype they were stored in.

    Opens .safetensors, and .pt/.pth/.ckpt/.bin pickles with weights_only=True, so that no code runs. `inside` names
    the parts of a training checkpoint that may hold the table, such as 'state_dict'; the other parts of such a file
    are never read, and its tensors are mapped to the file: copy what is kept.
    Raises FileError if the file is missing, cut short, unsafe, or holds anything but named tensors; also if it is of
    the format before torch 1.6, which is read as a whole, and larger than max_bytes.
    """
    path = existing_file(path)
    if path.suffix == ".safetensors":
        with open_safetensors(path) as file:
            return {key: file.get_tensor(key) for key in file.keys()}
    content = _read_pickle(path, mapped=bool(inside), max_bytes=max_bytes)
    if isinstance(content, Mapping):
        content = next((content[part] for part in inside if isinstance(content.get(part), Mapping)), content)
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise FileError(
            f"{path.name}: a table of named tensors was expected, {type(content).__name__} found. "
            "Use the file that holds the weights alone."
        )
    return dict(content)


def read_tensor(path: Path) -> Tensor:
    """The one tensor that a .pt or .pth file holds, on the CPU, wherever it was saved. Raises as read_tensors does."""
    path = existing_file(path)
    content = _read_pickle(path)
    if not isinstance(content, Tensor):
        raise FileError(f"{path.name}: one tensor was expected, {type(content).__name__} found. Choose another file.")
    return content


def _read_pickle(path: Path, mapped: bool = False, max_bytes: int | None = None):
    if path.suffix not in PICKLE_SUFFIXES:
        raise FileError(f"{path.name}: '{path.suffix}' files are not read here. Use a .safetensors or .pt file.")
    is_zip, size = zipfile.is_zipfile(path), path.stat().st_size
    if not is_zip and max_bytes is not None and size > max_bytes:
        raise FileError(
            f"{path.name}: this file of {size / 1e9:.1f} GB is in the format of old PyTorch versions, which is read as "
            f"a whole, and only {max_bytes / 1e9:.1f} GB of memory are free. Close other programs, or save the file "
            "anew with a newer PyTorch."
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped and is_zip)
    except pickle.UnpicklingError as error:
        raise FileError(
            f"{path.name}: this file asks to run code while it is opened, or is no weight file, and was not "
            f"loaded. Get the file again from its authors, or a .safetensors version of it."
        ) from error
    except (RuntimeError, EOFError, zipfile.BadZipFile, KeyError, ValueError, TypeError) as error:
        raise FileError(
            f"{path.name}: the file is damaged or cut short ({_first_line(error)}). Download it again."
        ) from error


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors of a .safetensors file by name; reads the header only.

    Raises FileError as read_tensors does, and for files of another kind.
    """
    path = existing_file(path)
    if path.suffix != ".safetensors":
        raise FileError(f"{path.name}: a .safetensors file is needed here, '{path.suffix}' found.")
    with open_safetensors(path) as file:
        return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}


def mentions(path: Path, words: bytes) -> bool:
    """Whether the table of contents of a weight file holds these words, without reading a tensor or running a pickle.

    True for a file that cannot be looked into: opening it tells what is wrong with it.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                return words in file.read(min(length, MAX_HEADER_BYTES))
        with zipfile.ZipFile(path) as archive:
            return any(words in archive.read(name) for name in archive.namelist() if name.endswith("data.pkl"))
    except (OSError, zipfile.BadZipFile):
        return True


def read_metadata(path: Path) -> dict[str, str]:
    """The text metadata of a .safetensors file; empty for other files and where there is none."""
    path = existing_file(path)
    if path.suffix != ".safetensors":
        return {}
    with open_safetensors(path) as file:
        return file.metadata() or {}


def write_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> Path:
    """The path of the .safetensors file written, whole: an interrupted or failed write leaves the old one.

    Raises FileError if the folder cannot be written or the disk is full.
    """
    contiguous = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    return write_whole(path, lambda temporary: save_file(contiguous, temporary, metadata=dict(metadata)))


def write_whole(path: Path, write: Callable[[str], None]) -> Path:
    """`path`, with what `write` puts into the temporary file it is given; the old file stays if that fails.

    Raises FileError if the folder cannot be written or the disk is full.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}-{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        mode = temporary.stat().st_mode
        write(str(temporary))
        # safetensors makes files that nobody else can read.
        temporary.chmod(mode)
        os.replace(temporary, path)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise FileError(
            f"{path.name}: could not be saved in {path.parent} ({_first_line(error)}). "
            "Free some disk space or check that the folder can be written, then run again."
        ) from error
    finally:
        if temporary.exists():
            temporary.unlink()
    return path


def check_keys(name: str, found: Mapping[str, tuple], expected: Mapping[str, tuple], hint: str) -> None:
    """Nothing, if `found` and `expected` hold the same keys with the same shapes.

    Raises FileError naming the first few keys that are missing, unexpected or of another shape.
    """
    missing = [key for key in expected if key not in found]
    unexpected = [key for key in found if key not in expected]
    reshaped = [key for key in expected if key in found and tuple(found[key]) != tuple(expected[key])]
    complaints = []
    if missing:
        complaints.append(f"{len(missing)} keys missing ({_some(missing)})")
    if unexpected:
        complaints.append(f"{len(unexpected)} keys unexpected ({_some(unexpected)})")
    if reshaped:
        key = reshaped[0]
        complaints.append(
            f"{len(reshaped)} tensors of another shape ({key}: {list(expected[key])} expected, "
            f"{list(found[key])} found)"
        )
    if complaints:
        raise FileError(f"{name}: {'; '.join(complaints)}. {hint}")


def existing_file(path: Path) -> Path:
    """`path`, if a file that is not empty lies there. Raises FileError otherwise."""
    path = Path(path)
    if not path.is_file():
        raise FileError(f"{path.name}: no such file in {path.parent}. Put it there and refresh the list.")
    if path.stat().st_size == 0:
        raise FileError(f"{path.name}: the file is empty. Download it again.")
    return path


def open_safetensors(path: Path):
    """The opened .safetensors file. Raises FileError if it is damaged or cut short."""
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise FileError(
            f"{path.name}: the file is damaged or cut short ({_first_line(error)}). Download it again."
        ) from error


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + (", ..." if len(keys) > 3 else "")


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
