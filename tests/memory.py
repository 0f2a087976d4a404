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


def held_memory_mb():
    """What this process holds for itself.

    glibc keeps what was freed, often a hundred megabytes more after one run than after another, and the system drops
    and reads again pages of libraries as it likes: the first is given back before, the second is not counted.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if Path("/proc/self/status").exists() else None
    if trim is None:
        pytest.skip("needs glibc and /proc")
    gc.collect()
    trim(0)
    return _megabytes("RssAnon")


def _megabytes(name):
    return int(re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024
