"""The recorded numbers of ACT-VAE's authors, and a small model in the release's layout."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from act_vae_data import make_parts, put_release
from safetensors.torch import load_file

GOLDEN = Path(os.environ.get("ACT_VAE_GOLDEN") or Path(__file__).parents[2] / "golden" / "act_vae")


@dataclass(frozen=True)
class ActVaeGolden:
    """One file of golden vectors; every size comes from it and its json."""

    name: str

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        return load_file(GOLDEN / f"{self.name}.safetensors")

    @property
    def about(self) -> dict:
        return json.loads((GOLDEN / f"{self.name}.json").read_text())

    def state(self, part: str) -> dict[str, torch.Tensor]:
        """The recorded weights of one part, under the release's keys."""
        prefix = f"sd.{part}."
        return {key[len(prefix) :]: value for key, value in self.tensors.items() if key.startswith(prefix)}

    def inputs(self) -> dict[str, torch.Tensor]:
        return {key[3:]: value for key, value in self.tensors.items() if key.startswith("in.")}

    def outputs(self) -> dict[str, torch.Tensor]:
        return {key[4:]: value for key, value in self.tensors.items() if key.startswith("out.")}


@pytest.fixture(params=sorted(path.stem for path in GOLDEN.glob("actvae_*.json")))
def golden_poses(request) -> ActVaeGolden:
    return ActVaeGolden(request.param)


def has_losses(path: Path) -> bool:
    return any(key.startswith("out.grad.") for key in json.loads(path.read_text())["tensors"])


@pytest.fixture(params=sorted(path.stem for path in GOLDEN.glob("actvae_*.json") if has_losses(path)))
def golden_losses(request) -> ActVaeGolden:
    return ActVaeGolden(request.param)


@pytest.fixture(params=sorted(path.stem for path in GOLDEN.glob("p2i_*.json")))
def golden_images(request) -> ActVaeGolden:
    return ActVaeGolden(request.param)


@pytest.fixture(scope="session")
def release_keys() -> dict[str, dict[str, list[int]]]:
    return json.loads((GOLDEN / "release_keys.json").read_text())


@pytest.fixture(scope="session")
def small_parts() -> dict[str, dict[str, torch.Tensor]]:
    """Random weights of all four networks under the release's keys. Shared."""
    return make_parts()


@pytest.fixture
def released_folder(small_parts, tmp_path) -> Path:
    """A folder as the authors' archive unpacks."""
    return put_release(tmp_path / "pretrain", small_parts)
