"""Tables of numbers and words from MATLAB's .mat files of version 5, as Penn Action's labels are.

A reader of its own because a damaged file ends the whole process in SciPy's. Layout: MATLAB's "MAT-File Format",
chapter 1: a header of 128 bytes, then elements, each with a type and a size; a matrix holds further elements (flags,
dimensions, name, numbers), and may be packed as a whole.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..downloads import existing_file, guarded
from ..errors import FileError

# A label of Penn Action has some kilobytes, also unpacked.
MAX_BYTES = 64_000_000

_HEADER_BYTES = 128
_MATRIX, _PACKED = 14, 15
# NumPy's kinds by the number of an element's type.
_KINDS = {
    1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8", 16: "u1", 17: "u2",
    18: "u4",
}  # fmt: skip
_TEXT, _NUMBERS = 4, range(6, 16)


def read_mat(path: Path) -> dict[str, np.ndarray | str]:
    """The numbers (float64, without sides of 1) and texts of a .mat file by name; what is of another kind is left out.

    Raises FileError if the file is missing, too large, damaged or of another version.
    """
    path = existing_file(path)
    if path.stat().st_size > MAX_BYTES:
        raise FileError(f"{path.name}: a label of more than {MAX_BYTES // 10**6} MB is not read. Take it out.")
    return guarded(path, lambda: _read(path.name, path.read_bytes()))


def _read(name: str, content: bytes) -> dict[str, np.ndarray | str]:
    order = {b"IM": "<", b"MI": ">"}.get(content[126:_HEADER_BYTES])
    if order is None or b"MATLAB 5" not in content[:20]:
        raise FileError(f"{name}: no label of Penn Action, a .mat file of version 5. Take it out of the folder.")
    found = {}
    for kind, data in _elements(content[_HEADER_BYTES:], order):
        if kind == _PACKED:
            (kind, data), *_ = _elements(_unpack(data), order)
        if kind == _MATRIX:
            key, value = _matrix(data, order)
            if value is not None:
                found[key] = value
    return found


def _elements(content: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Type and content of each element. Raises ValueError if one is longer than what is there."""
    at = 0
    while at + 8 <= len(content):
        kind, size = struct.unpack_from(f"{order}II", content, at)
        begin = at + 8
        # All but packed ones end on a multiple of eight.
        after = begin + (size if kind == _PACKED else -(-size // 8) * 8)
        if kind >> 16:
            # A short one: its size in the upper half of the first word, its content in the second.
            kind, size, begin, after = kind & 0xFFFF, kind >> 16, at + 4, at + 8
        if begin + size > min(after, len(content)):
            raise ValueError("cut short")
        yield kind, content[begin : begin + size]
        at = after


def _unpack(data: bytes) -> bytes:
    unpacking = zlib.decompressobj()
    content = unpacking.decompress(data, MAX_BYTES)
    if unpacking.unconsumed_tail:
        raise ValueError("unpacks to too much")
    return content


def _matrix(data: bytes, order: str) -> tuple[str, np.ndarray | str | None]:
    """The name of a matrix, and what it holds: None if that is no plain table of numbers or letters."""
    parts = [*_elements(data, order)]
    if len(parts) < 4:
        return "", None
    (_, flags), sides, (_, name), values, *_ = parts
    held = struct.unpack_from(f"{order}I", flags)[0] & 0xFF
    if held != _TEXT and held not in _NUMBERS:
        return "", None
    sides, values = (np.frombuffer(part, np.dtype(_KINDS[kind]).newbyteorder(order)) for kind, part in (sides, values))
    if len(sides) < 2 or (sides < 0).any() or math.prod(map(int, sides)) != len(values):
        raise ValueError("its sides are not those of its values")
    if held == _TEXT:
        return name.decode("ascii"), "".join(map(chr, values.tolist()))
    return name.decode("ascii"), values.astype(np.float64).reshape(sides, order="F").squeeze()
