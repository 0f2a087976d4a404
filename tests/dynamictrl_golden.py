"""The recorded numbers of DynamiCtrl; another set lies in the folder that DYNAMICTRL_GOLDEN names.

Sizes, frames, guidance, steps and layers are those of the files.
"""

import json
import os
from functools import cache
from pathlib import Path

import torch

OWN = Path(__file__).parent / "golden" / "dynamictrl"
FOLDER = Path(os.environ.get("DYNAMICTRL_GOLDEN") or OWN)


@cache
def tensors(name: str) -> dict[str, torch.Tensor]:
    """All tensors of one of the files."""
    from safetensors.torch import load_file

    return load_file(FOLDER / f"{name}.safetensors")


@cache
def facts(name: str) -> dict:
    """What the .json beside it says."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def part(name: str, prefix: str) -> dict[str, torch.Tensor]:
    """The tensors whose names begin so, without the beginning."""
    return {key.removeprefix(prefix): value for key, value in tensors(name).items() if key.startswith(prefix)}
