"""The recorded numbers of AMG's release, on a small UNet."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest
import torch

GOLDEN = Path(os.environ.get("AMG_GOLDEN") or Path(__file__).parents[2] / "golden" / "amg")


@dataclass(frozen=True)
class AMGGolden:
    """A set of golden vectors; every size and setting comes from its files."""

    folder: Path

    def json(self, name: str) -> dict:
        return json.loads((self.folder / f"{name}.json").read_text())

    @cached_property
    def settings(self) -> dict:
        return self.json("unet_io")

    @cached_property
    def io(self) -> dict[str, torch.Tensor]:
        from safetensors.torch import load_file

        return load_file(self.folder / "unet_io.safetensors")

    @cached_property
    def state(self) -> dict[str, torch.Tensor]:
        """The network's weights under the names of the release."""
        from safetensors.torch import load_file

        files = sorted(self.folder.glob("unet_weights_*.safetensors"))
        tensors = {key: value for file in files for key, value in load_file(file).items()}
        return {key.removeprefix("sd."): value for key, value in tensors.items()}

    @cached_property
    def parts(self):
        """The UNet without what was learned, and that."""
        from flexiact_core.amg.loading import build_unet

        return build_unet("golden", self.state, torch.float32)

    @cached_property
    def merged(self):
        from flexiact_core.amg.model import apply_adapter

        return apply_adapter(*self.parts)


@pytest.fixture(scope="session")
def amg_golden() -> AMGGolden:
    if not (GOLDEN / "unet_io.safetensors").is_file():
        pytest.fail(f"no golden vectors in {GOLDEN}. Point AMG_GOLDEN at a folder that holds them.")
    return AMGGolden(GOLDEN)


@pytest.fixture(scope="session")
def small():
    """A small AMG with random weights. Shared: nothing may change it."""
    from flexiact_core.amg.rehearsal import make_small_amg

    return make_small_amg()


@pytest.fixture(scope="session")
def components(small, tmp_path_factory):
    """A diffusers folder of text encoder, tokenizer and VAE, for the golden UNet's text of width 1024."""
    from flexiact_core.amg.rehearsal import make_small_amg

    wide = make_small_amg(text_width=1024)
    folder = tmp_path_factory.mktemp("parts") / "sd21"
    for name in ("text_encoder", "tokenizer", "vae"):
        getattr(wide, name).save_pretrained(folder / name)
    return folder


@pytest.fixture(scope="session")
def released_file(amg_golden, tmp_path_factory):
    """The golden weights in the layout of non_ema_0640000.pth."""
    file = tmp_path_factory.mktemp("released") / "non_ema_0640000.pth"
    moments = {index: {"exp_avg": torch.zeros(3)} for index in range(2)}
    content = {
        "state_dict": amg_golden.state,
        "optimizer": {"state": moments},
        "scaler": {"scale": 1.0},
        "step": 640000,
    }
    torch.save(content, file)
    return file
