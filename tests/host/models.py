"""Puts the models of the quickstart workflow where ComfyUI finds them."""

from __future__ import annotations

import sys
from pathlib import Path

from .environment import ROOT

NAME = "small_world"


def put_models(models: Path) -> str:
    """What the models under the folder `models` now are, in a sentence: the base, a RefAdapter and an action."""
    sys.path.append(str(Path(ROOT) / "tests"))
    from small_models import make_base, make_fae, make_refadapter

    make_base(models / "CogVideo" / NAME)
    make_refadapter(models / "flexiact" / "refadapter" / f"{NAME}.safetensors")
    make_fae(models / "flexiact" / "fae" / f"{NAME}.safetensors")
    return "a small model of the real classes with random weights: the video is noise, only the way it is made is real"
