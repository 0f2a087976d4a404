"""FAE, the frequency-aware embedding: the motion tokens learned from one reference video."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..cogvideox.model import base_signature, check_learned_on
from ..errors import FileError
from ..weight_files import check_keys, read_metadata, read_tensors, without_wrapper, write_tensors, write_whole

if TYPE_CHECKING:
    from diffusers import CogVideoXTransformer3DModel

TOKEN_KEY = "transformer_blocks.{}.attn1.processor.motion_inversion_tokens"
_TOKEN_PATTERN = re.compile(r"transformer_blocks\.(0|[1-9]\d{0,3})\.attn1\.processor\.motion_inversion_tokens")


@dataclass(frozen=True, eq=False)
class FAE:
    """One learned action: tokens (layers, M, width), on the CPU, and what its file says of itself."""

    tokens: Tensor
    name: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


def load_fae(path: Path) -> FAE:
    """The FAE of a released .pt file or a .safetensors file, in the dtype it was stored in.

    Keys may carry what a wrapped model puts before them, such as "module." or "transformer.".
    Raises FileError if the file cannot be read or is no FAE: other keys, layers missing, layers that differ
    in size.
    """
    path = Path(path)
    tensors = without_wrapper(read_tensors(path), "transformer_blocks.")
    layers = sorted(int(match[1]) for key in tensors if (match := _TOKEN_PATTERN.fullmatch(key)))
    if not layers:
        adapter = any(".lora_" in key for key in tensors)
        raise FileError(
            f"{path.name}: no motion tokens in it ({len(tensors)} other tensors found). "
            + ("This is a RefAdapter: choose it in Apply RefAdapter." if adapter else "Choose an FAE file.")
        )
    first = tensors[TOKEN_KEY.format(layers[0])]
    if not all(value.is_floating_point() for value in tensors.values()):
        raise FileError(f"{path.name}: motion tokens in floating point expected, {first.dtype} found.")
    if first.ndim != 3 or first.shape[0] != 1 or 0 in first.shape:
        raise FileError(
            f"{path.name}: motion tokens of shape [1, tokens, width] expected, {list(first.shape)} found. "
            "The file is of another method or version."
        )
    expected = {TOKEN_KEY.format(layer): tuple(first.shape) for layer in range(max(layers) + 1)}
    found = {key: tuple(value.shape) for key, value in tensors.items()}
    check_keys(path.name, found, expected, "The file is incomplete or no FAE: get it again from where it was made.")
    tokens = torch.cat([tensors[key] for key in expected])
    if not torch.isfinite(tokens.float()).all():
        raise FileError(f"{path.name}: some motion tokens are not numbers. Its training failed: train it again.")
    return FAE(tokens, name=path.stem, metadata=read_metadata(path))


def save_fae(fae: FAE, path: Path) -> Path:
    """The .safetensors file written, in the released key layout, with the FAE's metadata.

    Raises FileError if it could not be written; a file that was there is then left as it was.
    """
    # Cloned, since safetensors refuses tensors that share memory.
    tensors = {TOKEN_KEY.format(layer): tokens[None].clone() for layer, tokens in enumerate(fae.tokens)}
    return write_tensors(tensors, path, {key: str(value) for key, value in fae.metadata.items()})


def save_released_fae(fae: FAE, path: Path) -> Path:
    """The .pt file written as the authors' code reads it: a pickled table of the released keys, bfloat16.

    Raises FileError if it could not be written.
    """
    tensors = {TOKEN_KEY.format(layer): tokens[None].bfloat16() for layer, tokens in enumerate(fae.tokens)}
    return write_whole(path, lambda temporary: torch.save(OrderedDict(tensors), temporary))


def check_fae(fae: FAE, transformer: CogVideoXTransformer3DModel) -> None:
    """Passes if the FAE fits the base. Raises FileError saying which base it was learned on."""
    config = transformer.config
    expected = (config.num_layers, config.num_attention_heads * config.attention_head_dim)
    found = (fae.tokens.shape[0], fae.tokens.shape[2])
    if found != expected:
        learned_on = fae.metadata.get("base", f"cogvideox-i2v-{found[0]}x{found[1]}")
        raise FileError(
            f"FAE '{fae.name}': made for {found[0]} layers of width {found[1]} ({learned_on}); the loaded base has "
            f"{expected[0]} layers of width {expected[1]} ({base_signature(transformer)}). "
            "Load the base it was trained on, or train the action again on this one."
        )
    check_learned_on(f"FAE '{fae.name}'", fae.metadata.get("base"), transformer)
