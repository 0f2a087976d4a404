"""Puts small random models where ComfyUI finds them, for tests of what needs no trained model."""

from __future__ import annotations

import sys
from pathlib import Path

from .environment import ROOT

NAME = "small_random"


def put_models(models: Path) -> None:
    """Fills the folder `models`, which then holds a base, a RefAdapter and an action, all called NAME."""
    sys.path.append(str(Path(ROOT) / "tests"))
    from small_models import make_base, make_fae, make_refadapter

    make_base(models / "CogVideo" / NAME)
    make_refadapter(models / "flexiact" / "refadapter" / f"{NAME}.safetensors")
    make_fae(models / "flexiact" / "fae" / f"{NAME}.safetensors")
