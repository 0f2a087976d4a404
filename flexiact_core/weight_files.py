"""Reading and writing of weight files: safe to open, strict in their keys, whole or not written at all."""

from __future__ import annotations

import contextlib
import glob
import os
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save_file
from torch import Tensor

from .downloads import existing_file, guarded
from .errors import FileError
from .pickles import check_tensors, pickles_in, read_pickle

# A table of contents of the largest model here has some hundred kilobytes; one of megabytes only costs memory.
MAX_HEADER_BYTES = 8_000_000
# Above this a .safetensors file may stay mapped, so that it takes no memory beside the system's own cache.
MAX_READ_BYTES = 256_000_000

_DTYPES = {
    "F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL"
}  # fmt: skip


@dataclass(frozen=True)
class StoredTensor:
    """What a table of contents says of one tensor; dtype is safetensors' name for it, such as BF16."""

    shape: tuple[int, ...]
    dtype: str
    nbytes: int


@dataclass(frozen=True)
class FileStamp:
    """A file and how it was when it was read."""

    path: Path
    size: int
    modified_ns: int


def read_tensors(path: Path, inside: Sequence[str] = (), max_bytes: int | None = None) -> dict[str, Tensor]:
    """All tensors of a weight file by name, on the CPU, in the dtype they were stored in, in memory of their own.

    Opens .safetensors, and .pt/.pth/.ckpt/.bin pickles with weights_only=True, so that no code runs. `inside` names
    the parts of a training checkpoint that may hold the table, such as 'state_dict'; the other parts of such a file
    are never read, and its tensors are mapped to the file: copy what is kept.
    Raises FileError if the file is missing, cut short, unsafe, or holds anything but named tensors; also if it is of
    the format before torch 1.6, which is read as a whole, and larger than max_bytes.
    """
    path = existing_file(path)
    if path.suffix == ".safetensors":
        read_contents(path)
        if path.stat().st_size > MAX_READ_BYTES:
            return {key: tensor.clone() for key, tensor in _mapped(path).items()}
        return guarded(path, lambda: dict(sorted(load(path.read_bytes()).items())))
    content = read_pickle(path, mapped=bool(inside), max_bytes=max_bytes)
    if isinstance(content, Mapping):
        content = next((content[part] for part in inside if isinstance(content.get(part), Mapping)), content)
    return check_tensors(path, content)


def read_tensor(path: Path) -> Tensor:
    """The one tensor that a .pt or .pth file holds, on the CPU, wherever it was saved. Raises as read_tensors does."""
    path = existing_file(path)
    content = read_pickle(path)
    if not isinstance(content, Tensor):
        raise FileError(f"{path.name}: one tensor was expected, {type(content).__name__} found. Choose another file.")
    return check_tensors(path, {path.name: content})[path.name]


def map_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a .safetensors file by name; those of a file above MAX_READ_BYTES stay in the file.

    The system then reads them when they are used. Whoever keeps them keeps the file's stamp_large, too: their values
    change with the file, and a file cut short while it is mapped ends the process.
    Raises FileError as read_tensors does.
    """
    path = existing_file(path)
    read_contents(path)
    return _mapped(path) if path.stat().st_size > MAX_READ_BYTES else read_tensors(path)


def stamp_large(paths: Iterable[Path]) -> tuple[FileStamp, ...]:
    """The stamps of those files that map_tensors maps."""
    stats = [(Path(path), os.stat(path)) for path in paths]
    return tuple(FileStamp(p, s.st_size, s.st_mtime_ns) for p, s in stats if s.st_size > MAX_READ_BYTES)


def check_unchanged(stamps: Iterable[FileStamp]) -> None:
    """Passes if these files are as they were read, or were moved away as a whole.

    Raises FileError naming the first one whose size or time of change differs.
    """
    for stamp in stamps:
        try:
            found = stamp.path.stat()
        except OSError:
            continue  # a deleted or renamed file is still there for whoever has it mapped
        if (found.st_size, found.st_mtime_ns) != (stamp.size, stamp.modified_ns):
            raise FileError(
                f"{stamp.path.name}: the file was changed after it was loaded, and its weights with it. Queue the "
                "prompt again: the base is then loaded anew."
            )


def read_contents(path: Path) -> dict[str, StoredTensor]:
    """What a .safetensors file holds by name; reads its table of contents only.

    Raises FileError as read_tensors does, and for files of another kind.
    """
    path = existing_file(path)
    if path.suffix != ".safetensors":
        raise FileError(f"{path.name}: a .safetensors file is needed here, '{path.suffix}' found.")
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if MAX_HEADER_BYTES < length < path.stat().st_size:
        raise FileError(f"{path.name}: its table of contents has {length / 1e6:.0f} MB, too much for a model here.")
    contents = guarded(path, lambda: _read_contents(path))
    odd = sorted({stored.dtype for stored in contents.values()} - _DTYPES)
    if odd:
        raise FileError(f"{path.name}: tensors in the number format {odd[0]} are not read here. Get a 16-bit version.")
    return contents


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors of a .safetensors file by name; reads the header only. Raises as read_contents does."""
    return {key: stored.shape for key, stored in read_contents(path).items()}


def mentions(path: Path, words: bytes) -> bool:
    """Whether the table of contents of a weight file holds these words, without reading a tensor or running a pickle.

    True for a file that cannot be looked into: opening it tells what is wrong with it. Never raises.
    """
    path = Path(path)
    try:
        existing_file(path)
        with path.open("rb") as file:
            if path.suffix == ".safetensors":
                length = int.from_bytes(file.read(8), "little")
                return words in file.read(min(length, MAX_HEADER_BYTES))
            return any(words in content for content in pickles_in(file))
    except Exception:
        return True


def open_safetensors(path: Path):
    """The opened .safetensors file, for who needs some of its tensors; they stay mapped. Raises as read_contents."""
    read_contents(path)
    return guarded(path, lambda: safe_open(path, framework="pt"))


def read_metadata(path: Path) -> dict[str, str]:
    """The text metadata of a .safetensors file; empty for other files and where there is none."""
    path = existing_file(path)
    if path.suffix != ".safetensors":
        return {}
    with open_safetensors(path) as file:
        return guarded(path, lambda: file.metadata() or {})


def write_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> Path:
    """The path of the .safetensors file written, whole: an interrupted or failed write leaves the old one.

    Raises FileError if the folder cannot be written or the disk is full.
    """
    contiguous = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    return write_whole(path, lambda temporary: save_file(contiguous, temporary, metadata=dict(metadata)))


def write_content(path: Path, content: bytes) -> Path:
    """`path` with this content, as write_whole() writes it. Raises FileError as that does."""
    return write_whole(path, lambda temporary: Path(temporary).write_bytes(content))


def write_whole(path: Path, write: Callable[[str], None]) -> Path:
    """`path`, with what `write` puts into the temporary file it is given; the old file stays if that fails.

    The content is on the disk before it takes the name, so that a power cut leaves the old file or the new one. What
    a process that was killed here left behind is removed.
    Raises FileError if the folder cannot be written or the disk is full.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}-{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f".{glob.escape(path.stem)}-{'[0-9a-f]' * 8}.part"):
            left.unlink(missing_ok=True)
        temporary.touch()
        mode = temporary.stat().st_mode
        write(str(temporary))
        # safetensors makes files that nobody else can read.
        temporary.chmod(mode)
        _sync(temporary)
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or _first_line(error)
        raise FileError(
            f"{path.name}: could not be saved in the folder {path.parent.name} ({reason}). "
            "Free some disk space or check that the folder can be written, then run again."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return path


def _sync(file: Path) -> None:
    with open(file, "rb+") as written:
        os.fsync(written.fileno())


def _sync_folder(folder: Path) -> None:
    # Only POSIX opens folders, and some network drives refuse to sync them; the file itself is safe then.
    with contextlib.suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def without_wrapper(tensors: Mapping[str, Tensor], first: str) -> dict[str, Tensor]:
    """The tensors, their keys beginning with `first`, if all of them have one and the same thing before it.

    A model saved from inside another has it: "module.", "transformer.", "base_model.model.". Others are left as is.
    """
    wrappers = {key.partition(first)[0] if first in key else None for key in tensors}
    if len(wrappers) != 1 or None in wrappers:
        return dict(tensors)
    return {key[len(wrapper) :]: value for wrapper in wrappers for key, value in tensors.items()}


def check_keys(name: str, found: Mapping[str, tuple], expected: Mapping[str, tuple], hint: str) -> None:
    """Passes if `found` and `expected` hold the same keys with the same shapes.

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
            f"{len(reshaped)} tensors of another shape ({key[:100]}: {list(expected[key])} expected, "
            f"{list(found[key])} found)"
        )
    if complaints:
        raise FileError(f"{name}: {'; '.join(complaints)}. {hint}")


def _read_contents(path: Path) -> dict[str, StoredTensor]:
    with safe_open(path, framework="pt") as file:
        slices = {key: file.get_slice(key) for key in file.keys()}
        stored = {key: (tuple(part.get_shape()), str(part.get_dtype())) for key, part in slices.items()}
    return {key: StoredTensor(shape, dtype, _nbytes(shape, dtype)) for key, (shape, dtype) in stored.items()}


def _nbytes(shape: tuple[int, ...], dtype: str) -> int:
    count = 1
    for side in shape:
        count *= side
    bits = 8 if dtype == "BOOL" else int("".join(filter(str.isdigit, dtype.split("_")[0])) or 8)
    return count * bits // 8


def _mapped(path: Path) -> dict[str, Tensor]:
    def read() -> dict[str, Tensor]:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}

    return guarded(path, read)


def _some(keys: list[str]) -> str:
    return ", ".join(key[:100] for key in keys[:3]) + (", ..." if len(keys) > 3 else "")


def _first_line(error: Exception) -> str:
    # An OSError's own text names the file with its place on the machine.
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return (text or type(error).__name__).splitlines()[0][:200]
