"""The parts of a base on their way from files: known and checked by tables of contents first, read after."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ..errors import FileError
from ..weight_files import MAX_READ_BYTES, StoredTensor, check_keys, map_tensors, read_contents

_STORED_AS = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}

_BYTES = {name: dtype.itemsize for dtype, name in _STORED_AS.items()}


@dataclass(frozen=True, eq=False)
class Part:
    """One module of a base before its weights are read.

    name is what sentences call it, kind what it is; module lies on the meta device. keys gives the module's name of a
    tensor by file and name in it; scales names the number that a float8 tensor is multiplied by. to_dtype says in what
    a tensor is kept, by its name, number of dimensions and stored format; None: as it is stored.
    """

    name: str
    kind: str
    module: torch.nn.Module
    keys: Mapping[Path, Mapping[str, str]]
    contents: Mapping[str, StoredTensor]
    to_dtype: Callable[[str, int, str], torch.dtype | None]
    scales: Mapping[str, str] = field(default_factory=dict)

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that hold its weights."""
        return tuple(self.keys)

    def count_bytes(self) -> int:
        """The memory that reading it takes: all but what stays in a large file as it is stored there."""
        total = 0
        for file, names in self.keys.items():
            mapped = file.stat().st_size > MAX_READ_BYTES
            for key in names.values():
                stored = self.contents[key]
                dtype = self.to_dtype(key, len(stored.shape), stored.dtype)
                if dtype is None:
                    total += count_values(stored.shape) * _BYTES.get(stored.dtype, 4)
                elif not mapped or stored.dtype != _STORED_AS[dtype] or key in self.scales:
                    total += count_values(stored.shape) * dtype.itemsize
        return total

    def read(self) -> torch.nn.Module:
        """The module with its weights, on the CPU, frozen, in eval mode. Raises FileError if a file cannot be read."""
        state = self.read_state()
        # One matrix may have two names, and a file then often only one of them.
        own = self.module.state_dict(keep_vars=True)
        for key in own.keys() - state.keys():
            state[key] = next(state[other] for other in state if own[other] is own[key])
        self.module.load_state_dict(state, strict=True, assign=True)
        if hasattr(self.module, "set_input_embeddings"):
            # Assigning has parted them: moved to a device, each name would take memory of its own.
            self.module.set_input_embeddings(self.module.get_input_embeddings())
        return self.module.eval().requires_grad_(False)

    def read_state(self) -> dict[str, Tensor]:
        """The tensors by the module's names, on the CPU. Raises FileError if a file cannot be read."""
        state: dict[str, Tensor] = {}
        for file, names in self.keys.items():
            tensors = map_tensors(file)
            state |= {key: self._in_dtype(key, tensors, name) for name, key in names.items()}
        return state

    def _in_dtype(self, key: str, tensors: Mapping[str, Tensor], name: str) -> Tensor:
        tensor = tensors[name]
        dtype = self.to_dtype(key, tensor.ndim, _STORED_AS.get(tensor.dtype, ""))
        if key not in self.scales:
            return tensor if dtype is None else tensor.to(dtype)
        return (tensor.float() * tensors[self.scales[key]].float()).to(dtype or torch.bfloat16)


def count_values(shape: Iterable[int]) -> int:
    """How many numbers a tensor of this shape has."""
    count = 1
    for side in shape:
        count *= side
    return count


def contents_of(files: Iterable[Path]) -> dict[Path, dict[str, StoredTensor]]:
    """The tables of contents of .safetensors files. Raises FileError if one cannot be read."""
    return {file: read_contents(file) for file in files}


def plan_part(
    name: str,
    kind: str,
    module: torch.nn.Module,
    keys: Mapping[Path, Mapping[str, str]],
    contents: Mapping[Path, Mapping[str, StoredTensor]],
    to_dtype: Callable[[str, int, str], torch.dtype | None],
    hint: str,
    scales: Mapping[str, str] | None = None,
) -> Part:
    """A Part, checked: the files hold every tensor of the module, in its shape, and no other.

    Raises FileError naming the first few that are missing, too many or of another shape, and the way out `hint`.
    """
    found = {key: contents[file][name] for file, names in keys.items() for name, key in names.items()}
    whole = module.state_dict(keep_vars=True)
    expected = {key: tuple(value.shape) for key, value in whole.items()}
    # Of names for one matrix, any of them is enough.
    for key in expected.keys() - found.keys():
        if any(other in found and whole[other] is whole[key] for other in whole):
            expected.pop(key)
    check_keys(name, {key: stored.shape for key, stored in found.items()}, expected, hint)
    return Part(name, kind, module, keys, found, to_dtype, scales or {})


def check_room(name: str, parts: Iterable[Part], free_bytes: int) -> None:
    """Passes if the parts can be read into the memory that is free.

    Raises FileError otherwise, with what each needs and what is free.
    """
    needed = {part.kind: part.count_bytes() for part in parts}
    if sum(needed.values()) > free_bytes:
        each = ", ".join(f"{kind} {size / 1e9:.1f}" for kind, size in needed.items())
        raise FileError(
            f"{name}: needs {sum(needed.values()) / 1e9:.1f} GB of memory to load ({each}), {free_bytes / 1e9:.1f} GB "
            "are free. Close other programs, or choose the dtype that the files are stored in (bf16 for the released "
            "base): they are then used as they lie on the disk."
        )
