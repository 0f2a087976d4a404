"""From files to AMG: recognised by keys and shapes, never by name; strict in both."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from ..errors import FileError, why
from ..model_folders import read_config
from ..weight_files import check_keys, read_metadata, read_tensor, read_tensors, write_tensors
from .keys import has_released_names, to_diffusers
from .model import AMG, CONV_IN, INPUT_CHANNELS, LATENT_CHANNELS, Adapter, describe_unet, empty_unet, lora_shapes
from .model import widen_input as widen
from .parts import has_parts, load_parts, read_folder

FAMILY = "amg adapter"
# Parts of a UNet's config that its tensors' shapes do not tell; released values without a config.
UNTOLD = ("norm_num_groups", "norm_eps", "act_fn", "mid_block_scale_factor", "downsample_padding")
NEEDED = "AMG needs non_ema_0640000.pth, or a ModelScope text-to-video base as a start for training."


def load_amg(
    source: Path,
    dtype: torch.dtype,
    *,
    components: Path | None = None,
    adapter: Path | None = None,
    zero_text: Path | None = None,
    tokenizer_folder: Path | None = None,
    max_bytes: int | None = None,
) -> AMG:
    """AMG from its release's file, from a ModelScope base with an adapter, or from such a base alone, to train on.

    source: .pth (the release's, VGen's or ModelScope's names), .safetensors (those or diffusers' names), or a diffusers
    folder with `unet`. components: where text encoder, tokenizer and VAE come from, as in load_parts(); None leaves
    them out. zero_text: a file of one tensor (1, S, D), as the release's zero_y.pt. max_bytes: as in read_tensors().
    All modules are on the CPU, frozen, and in `dtype`.
    Raises FileError if a file is missing, damaged, unsafe or of another model.
    """
    source = Path(source)
    name = source.name if source.is_dir() else source.stem
    config = read_config(source / "unet" / "config.json") if source.is_dir() else {}
    unet, learned = build_unet(source.name, read_unet(source, max_bytes), dtype, config)
    reads_avatar = bool(learned.conv_in[CONV_IN[0]][:, LATENT_CHANNELS:].any())
    if adapter is not None:
        learned, reads_avatar = load_adapter(adapter), True
        check_adapter(learned, unet)
    text_encoder = tokenizer = vae = None
    if components is not None:
        text_encoder, tokenizer, vae = load_parts(components, dtype, tokenizer_folder)
        check_text_width(components.name, text_encoder.config.hidden_size, unet)
    zero = None if zero_text is None else load_zero_text(zero_text, unet)
    return AMG(unet, dtype, learned, reads_avatar, text_encoder, tokenizer, vae, zero, name)


def has_components(source: Path) -> bool:
    """Whether `source` can give text encoder, tokenizer and VAE, too."""
    return Path(source).is_dir() and has_parts(source)


def read_unet(source: Path, max_bytes: int | None = None) -> dict[str, Tensor]:
    """The UNet's tensors of a file or diffusers folder, mapped to the file where possible."""
    source = Path(source)
    if not source.is_dir():
        return read_tensors(source, inside=("state_dict",), max_bytes=max_bytes)
    if not (source / "unet").is_dir():
        raise FileError(f"{source.name}: no unet folder in it. {NEEDED}")
    return read_folder(source / "unet")


def build_unet(
    name: str, state: Mapping[str, Tensor], dtype: torch.dtype, stored: Mapping[str, Any] = MappingProxyType({})
):
    """The UNet with eight input channels, and the adapter in the file: its LoRA (empty if it has none) and input layer.

    state is under released or diffusers names; stored is a diffusers config, for what shapes do not tell. A base that
    reads four channels is widened; the avatar counts 0.
    Raises FileError naming the first keys that are missing, unexpected or of another shape.
    """
    if CONV_IN[0] in state and len(state) <= len(CONV_IN) + sum(".lora_" in key for key in state):
        raise FileError(f"{name}: this is an adapter, without the base it goes with. Choose it under 'adapter'.")
    if has_released_names(state):
        state = to_diffusers(state, name)
    base = {key: value for key, value in state.items() if ".lora_" not in key}
    lora = {key: value for key, value in state.items() if ".lora_" in key}
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    config = _describe(name, {key: shapes[key] for key in base}, stored)
    if config["in_channels"] == LATENT_CHANNELS:
        base[CONV_IN[0]] = widen(base[CONV_IN[0]])
        config |= {"in_channels": INPUT_CHANNELS}
        shapes[CONV_IN[0]] = tuple(base[CONV_IN[0]].shape)
    unet = empty_unet(config, name)
    expected = {key: tuple(value.shape) for key, value in unet.state_dict().items()}
    if lora:
        rank = min(min(shapes[key]) for key in lora)
        expected |= lora_shapes(unet, rank)
    check_keys(name, shapes, expected, "The file is incomplete or of another model. " + NEEDED)
    # Copies, so that nothing stays mapped to the file.
    unet.load_state_dict({key: value.to(dtype, copy=True) for key, value in base.items()}, strict=True, assign=True)
    learned = Adapter(_copies(lora), _copies({key: base[key] for key in CONV_IN}), Path(name).stem)
    return unet.eval().requires_grad_(False), learned


def load_adapter(path: Path) -> Adapter:
    """What save_adapter() wrote. Raises FileError if it is something else."""
    path = Path(path)
    tensors = read_tensors(path)
    lora = {key: value.float() for key, value in tensors.items() if ".lora_" in key}
    conv_in = {key: tensors[key].float() for key in CONV_IN if key in tensors}
    if len(conv_in) != len(CONV_IN) or len(lora) + len(conv_in) != len(tensors):
        raise FileError(f"{path.name}: this is no AMG adapter (LoRA and conv_in). Save AMG Adapter makes one.")
    return Adapter(lora, conv_in, path.stem)


def save_adapter(adapter: Adapter, path: Path, metadata: Mapping[str, object] | None = None) -> Path:
    """The .safetensors file written, whole or not at all, in 16 bits: 3.4 MB at released size."""
    tensors = {key: value.to(torch.float16) for key, value in adapter.tensors().items()}
    texts = {key: str(value) for key, value in (metadata or {}).items()}
    return write_tensors(tensors, path, {"family": FAMILY, **texts})


def is_adapter(path: Path) -> bool:
    """Whether a file says that it is an adapter of this pack."""
    return read_metadata(path).get("family") == FAMILY


def check_adapter(adapter: Adapter, unet) -> None:
    """Passes if the adapter fits the UNet. Raises FileError naming the first keys that do not."""
    rank = min((min(value.shape) for value in adapter.lora.values()), default=1)
    state = unet.state_dict()
    expected = {key: tuple(state[key].shape) for key in CONV_IN} | (lora_shapes(unet, rank) if adapter.lora else {})
    found = {key: tuple(value.shape) for key, value in adapter.tensors().items()}
    check_keys(adapter.name, found, expected, "This adapter was made for a base of another size.")


def load_zero_text(path: Path, unet) -> Tensor:
    """The embedding (1, S, D) of no words from a file of one tensor, wherever it was saved.

    Raises FileError if its shape is another.
    """
    zero = read_tensor(path).float()
    zero = zero[None] if zero.ndim == 2 else zero
    if zero.ndim != 3 or len(zero) != 1:
        raise FileError(f"{Path(path).name}: 1 x tokens x width expected, {list(zero.shape)} found.")
    check_text_width(Path(path).name, zero.shape[-1], unet)
    return zero


def check_text_width(name: str, width: int, unet) -> None:
    """Passes if the UNet reads text of this width. Raises FileError otherwise."""
    needed = unet.config.cross_attention_dim
    if width != needed:
        kinds = {768: " (Stable Diffusion 1.x)", 2048: " (SDXL)"}
        raise FileError(
            f"{name}: text of width {width}{kinds.get(width, '')} found, {needed} needed. Use the text encoder of "
            "Stable Diffusion 2.x."
        )


def adapter_digest(adapter: Adapter) -> str:
    """A short name for what an adapter holds: equal ones, equal names."""
    contents = hashlib.sha256()
    for key, value in sorted(adapter.tensors().items()):
        contents.update(key.encode() + value.detach().float().cpu().contiguous().numpy().tobytes())
    return contents.hexdigest()


def with_adapter(amg: AMG, adapter: Adapter) -> AMG:
    """The same model with other learned parts; the one given is left as it is."""
    return replace(amg, adapter=adapter, reads_avatar=True)


def _copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.to(torch.float32, copy=True) for key, value in tensors.items()}


def _describe(name: str, shapes: Mapping[str, tuple[int, ...]], stored: Mapping[str, Any]) -> dict:
    try:
        config = {key: stored[key] for key in UNTOLD if key in stored} | describe_unet(shapes)
    except (FileError, ValueError, KeyError, IndexError) as error:
        reason = error if isinstance(error, FileError) else f"not a whole video UNet ({why(error)}). {NEEDED}"
        raise FileError(f"{name}: {reason}") from error
    if config["in_channels"] not in (LATENT_CHANNELS, INPUT_CHANNELS):
        raise FileError(f"{name}: {config['in_channels']} input channels found, 8 needed (4 in a base). {NEEDED}")
    return config
