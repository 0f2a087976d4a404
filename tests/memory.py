"""How much memory a piece of work takes."""

from __future__ import annotations

import ctypes
import gc
import re
from pathlib import Path

import pytest


def highest_memory_mb(work):
    """What `work` takes at its highest, beside what this process has before."""

    Path("/proc/self/clear_refs").write_text("5")  # forgets the highest so far
    before = _megabytes("VmRSS")
    work()
    return _megabytes("VmHWM") - before


class _Allocated(ctypes.Structure):
    """mallinfo2 of glibc; its man page says what each number is."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    ]


def held_memory_mb():
    """What this process has allocated and not given back, tensors among it.

    The allocator is asked and not the system: how much of what was freed stays with the process, and how many of its
    pages are there at the moment, is another number at each run of a busy machine.
    """
    mallinfo2 = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if mallinfo2 is None:
        pytest.skip("needs glibc 2.33 or newer")
    mallinfo2.restype = _Allocated
    gc.collect()
    allocated = mallinfo2()
    return (allocated.uordblks + allocated.hblkhd) / 1024**2


def _megabytes(name):
    return int(re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024
