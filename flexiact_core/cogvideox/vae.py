"""The VAE of a base, from a diffusers folder or from a single file as ComfyUI has it in models/vae."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import FileError
from ..model_folders import read_config, weight_files_of
from ..modules import make_empty
from .family import COGVIDEOX_1_0
from .parts import Part, contents_of, plan_part

# CogVideoX-5b-I2V's vae/config.json, for single files that come without one.
RELEASED = {
    "act_fn": "silu",
    "block_out_channels": [128, 256, 256, 512],
    "down_block_types": ["CogVideoXDownBlock3D"] * 4,
    "in_channels": 3,
    "latent_channels": 16,
    "layers_per_block": 3,
    "norm_eps": 1e-06,
    "norm_num_groups": 32,
    "out_channels": 3,
    "sample_height": 480,
    "sample_width": 720,
    "scaling_factor": 0.7,
    "temporal_compression_ratio": 4,
    "up_block_types": ["CogVideoXUpBlock3D"] * 4,
}

FIRST_KEY = "decoder.conv_in.conv.weight"

_NEEDED = (
    "A CogVideoX VAE with diffusers keys is needed (16 latent channels), such as the vae folder of CogVideoX-5b-I2V."
)


def plan_vae(source: Path, dtype: torch.dtype | None, config: Mapping[str, Any] | None = None) -> Part:
    """The VAE in a folder with config.json, or in a .safetensors file, ready to be read in `dtype`.

    config is that of the base whose VAE a single file holds, by default the released one.
    Raises FileError if it cannot be read or is another model.
    """
    if source.is_dir():
        name, hint = f"{source.parent.name}/{source.name}", "Download the vae folder again."
        config, files = read_config(source / "config.json"), weight_files_of(source)
    else:
        name, hint, files = source.name, _NEEDED, [source]
        config = config or RELEASED
    channels = config.get("latent_channels")
    if channels != COGVIDEOX_1_0.latent_channels:
        owner = source.parent.name if source.is_dir() else name
        raise FileError(
            f"{owner}: its VAE has {channels} latent channels, {COGVIDEOX_1_0.latent_channels} needed. {_NEEDED}"
        )
    contents = contents_of(files)
    names = [key for table in contents.values() for key in table]
    wrapper = next((key.removesuffix(FIRST_KEY) for key in names if key.endswith(FIRST_KEY)), None)
    if wrapper is None:
        raise FileError(f"{name}: no CogVideoX VAE in it. {hint if source.is_dir() else _NEEDED}")
    keys = {
        file: {key: key.removeprefix(wrapper) for key in table if key.startswith(wrapper)}
        for file, table in contents.items()
    }

    def make() -> torch.nn.Module:
        from diffusers import AutoencoderKLCogVideoX

        return AutoencoderKLCogVideoX.from_config(dict(config))

    _check_layers(name, config, len(names))
    return plan_part(name, "VAE", make_empty(name, make), keys, contents, lambda *_: dtype, hint)


def _check_layers(name: str, config: Mapping[str, Any], num_tensors: int) -> None:
    # Each layer has a few tensors: a config of more layers than that would only build without end.
    layers = config.get("layers_per_block", 1)
    if not isinstance(layers, int) or not 0 < layers <= num_tensors:
        raise FileError(f"{name}/config.json: layers_per_block is not as its weights are. Download the file again.")
