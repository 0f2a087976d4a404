"""Time, floating point operations and memory of a piece of work, measured the same way for every side."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode


def clock(device: torch.device) -> float:
    """Seconds so far: on a GPU by the wall clock, once it has done all it was given; on a CPU those that this process
    computed, which other work on the machine does not lengthen."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()


def time_side_by_side(
    sides: Mapping[str, Callable[[], object]], device: torch.device, rounds: int
) -> dict[str, list[float]]:
    """Seconds of each side in each round. The sides take turns, so that a busy machine slows all of them."""
    for work in sides.values():
        work()
    seconds = {name: [] for name in sides}
    for _ in range(rounds):
        for name, work in sides.items():
            started = clock(device)
            work()
            seconds[name].append(clock(device) - started)
    return seconds


def ratio(seconds: list[float], of: list[float]) -> float:
    """The median over the rounds of one side's time as a multiple of another's in the same round."""
    return statistics.median(mine / other for mine, other in zip(seconds, of, strict=True))


def count_flops(work: Callable[[], object]) -> int:
    """Floating point operations of matrix products and attention, counted as torch does; run it on the meta device."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def peak_bytes(work: Callable[[], object], device: torch.device) -> int:
    """The most bytes held at one moment beyond what was held before.

    On CUDA the allocator's own count. Elsewhere, the meta device included, that of all tensors made on the way; what a
    kernel takes for itself is not in it.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    with _HeldBytes() as held:
        work()
    return held.peak


class _HeldBytes(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.storages: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        for tensor in tree_leaves((args, kwargs)):
            self._note(tensor, made_here=False)
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            self._note(tensor, made_here=True)
        self.storages = {key: value for key, value in self.storages.items() if not value[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self.storages.values()))
        return result

    def _note(self, tensor, made_here: bool) -> None:
        if isinstance(tensor, torch.Tensor):
            storage = tensor.untyped_storage()
            known = self.storages.get(storage._cdata)
            if known is None or known[0].expired():
                self.storages[storage._cdata] = (StorageWeakRef(storage), storage.nbytes() if made_here else 0)


def matmul(device: torch.device, dtype: torch.dtype) -> tuple[Callable[[], object], int]:
    """A large square matrix product, the most that a device can do, and its floating point operations."""
    size = 8192 if device.type == "cuda" else 2048
    matrix = torch.randn(size, size, device=device, dtype=dtype)
    return lambda: matrix @ matrix, 2 * size**3
