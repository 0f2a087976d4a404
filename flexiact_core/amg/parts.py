"""Text encoder and VAE of Stable Diffusion 2.1, from a diffusers folder or from a single checkpoint file."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..downloads import existing_file
from ..errors import FileError, why
from ..model_folders import read_config, weight_files_of
from ..modules import make_empty
from ..weight_files import check_keys, open_safetensors, read_tensors
from .model import LATENT_CHANNELS, count_numbered

TEXT_PREFIX, VAE_PREFIX = "cond_stage_model.model.", "first_stage_model."
PARTS = ("text_encoder", "tokenizer", "vae")
# Files of CLIP's tokenizer, of which one set is enough.
VOCABULARIES = (("tokenizer.json",), ("vocab.json", "merges.txt"))
NEEDED = "AMG needs those of Stable Diffusion 2.1 (text of width 1024, VAE of 4 channels)."

_OPEN_CLIP = {
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}
_OPEN_CLIP_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def has_parts(source: Path) -> bool:
    """Whether a folder holds text encoder, tokenizer and VAE in the diffusers layout."""
    return all((Path(source) / part).is_dir() for part in PARTS)


def load_parts(source: Path, dtype: torch.dtype, tokenizer_folder: Path | None = None):
    """Text encoder, tokenizer and VAE of a diffusers folder or a Stable Diffusion 2.x checkpoint; frozen, on the CPU.

    A checkpoint brings no tokenizer: it comes from tokenizer_folder.
    Raises FileError if a part is missing, damaged, or of another model.
    """
    source = Path(source)
    if source.is_dir():
        missing = [part for part in PARTS if not (source / part).is_dir()]
        if missing:
            raise FileError(f"{source.name}: no {' and no '.join(missing)} folder in it. {NEEDED}")
        text, config = read_folder(source / "text_encoder"), read_config(source / "text_encoder" / "config.json")
        vae, vae_config = read_folder(source / "vae"), read_config(source / "vae" / "config.json")
        tokenizer_folder = source / "tokenizer"
    else:
        text, vae = read_prefixed(source, TEXT_PREFIX), read_prefixed(source, VAE_PREFIX)
        if not (text and vae):
            raise FileError(f"{source.name}: no text encoder and VAE of Stable Diffusion 2.x in it. {NEEDED}")
        text, config = _converted(source.name, lambda: from_open_clip(text))
        vae, vae_config = _converted(source.name, lambda: from_ldm_vae(vae))
    # What is quick to load, and so quick to fail, comes first.
    tokenizer = load_tokenizer(tokenizer_folder)
    vae = build_vae(source.name, vae, vae_config, dtype)
    text_encoder = build_text_encoder(source.name, text, config, dtype)
    if len(tokenizer) > text_encoder.config.vocab_size:
        raise FileError(
            f"{Path(tokenizer_folder).parent.name}/tokenizer: {len(tokenizer)} pieces, and the text encoder knows "
            f"{text_encoder.config.vocab_size}. Choose the components of one model."
        )
    return text_encoder, tokenizer, vae


def build_text_encoder(name: str, state: Mapping[str, Tensor], config: Mapping[str, Any], dtype: torch.dtype):
    """transformers' CLIPTextModel with these weights. Raises FileError if keys or shapes are wrong."""
    from transformers import CLIPTextConfig, CLIPTextModel

    _check_layers(name, config, "num_hidden_layers", len(state))
    encoder = make_empty(f"{name}/text_encoder", lambda: CLIPTextModel(CLIPTextConfig.from_dict(dict(config))))
    expected = {key: tuple(value.shape) for key, value in encoder.state_dict().items()}
    # transformers 5 dropped the outer name that files still have.
    prefix = "text_model." if next(iter(expected)).startswith("text_model.") else ""
    state = {prefix + key.removeprefix("text_model."): value for key, value in state.items()}
    state = {key: value for key, value in state.items() if not key.endswith("position_ids")}
    check_keys(f"{name}/text_encoder", _shapes(state), expected, NEEDED)
    encoder.load_state_dict({key: value.to(dtype, copy=True) for key, value in state.items()}, assign=True)
    for module in encoder.modules():
        if "position_ids" in module._buffers:
            module.position_ids = torch.arange(encoder.config.max_position_embeddings)[None]
    return encoder.eval().requires_grad_(False)


def build_vae(name: str, state: Mapping[str, Tensor], config: Mapping[str, Any], dtype: torch.dtype):
    """diffusers' AutoencoderKL with these weights. Raises FileError if it has not 4 channels, or keys are wrong."""
    from diffusers import AutoencoderKL

    channels = config.get("latent_channels")
    if channels != LATENT_CHANNELS:
        raise FileError(f"{name}: its VAE has {channels} latent channels, {LATENT_CHANNELS} needed. {NEEDED}")
    _check_layers(name, config, "layers_per_block", len(state))
    vae = make_empty(f"{name}/vae", lambda: AutoencoderKL.from_config(dict(config)))
    check_keys(
        f"{name}/vae", _shapes(state), {key: tuple(value.shape) for key, value in vae.state_dict().items()}, NEEDED
    )
    vae.load_state_dict({key: value.to(dtype, copy=True) for key, value in state.items()}, assign=True)
    return vae.eval().requires_grad_(False)


def from_open_clip(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights and config of a CLIPTextModel from OpenCLIP's text tower, without its last layer: the release reads
    the one before it.
    """
    layers = count_numbered(state, "transformer.resblocks.")
    ours = {new: state[old] for old, new in _OPEN_CLIP.items()}
    for layer in range(layers - 1):
        old, new = f"transformer.resblocks.{layer}.", f"encoder.layers.{layer}."
        for kind in ("weight", "bias"):
            ours |= {f"{new}{b}.{kind}": state[f"{old}{a}.{kind}"] for a, b in _OPEN_CLIP_LAYER.items()}
            thirds = state[f"{old}attn.in_proj_{kind}"].chunk(3)
            ours |= {f"{new}self_attn.{name}_proj.{kind}": third for name, third in zip("qkv", thirds)}
    vocabulary, width = state["token_embedding.weight"].shape
    return ours, {
        "hidden_size": width,
        "num_attention_heads": max(1, width // 64),
        "num_hidden_layers": layers - 1,
        "intermediate_size": len(state["transformer.resblocks.0.mlp.c_fc.bias"]),
        "max_position_embeddings": len(state["positional_embedding"]),
        "vocab_size": vocabulary,
        "hidden_act": "gelu",
    }


def from_ldm_vae(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights and config of an AutoencoderKL from a checkpoint's VAE, whose names are those of its authors."""
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    levels = count_numbered(state, "encoder.down.")
    config = {
        "latent_channels": state["post_quant_conv.weight"].shape[0],
        "block_out_channels": tuple(len(state[f"encoder.down.{at}.block.0.conv1.bias"]) for at in range(levels)),
        "layers_per_block": len({key.split(".")[4] for key in state if key.startswith("encoder.down.0.block.")}),
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "scaling_factor": 0.18215,
    }
    return convert_ldm_vae_checkpoint({VAE_PREFIX + key: value for key, value in state.items()}, config), config


def read_prefixed(path: Path, prefix: str) -> dict[str, Tensor]:
    """The tensors of a checkpoint whose names begin with `prefix`, without it; the others are not read."""
    if path.suffix == ".safetensors":
        with open_safetensors(path) as file:
            found = {key: file.get_tensor(key) for key in file.keys() if key.startswith(prefix)}
    else:
        found = {key: value for key, value in read_checkpoint(path).items() if key.startswith(prefix)}
    return {key.removeprefix(prefix): value for key, value in found.items()}


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint, mapped. Raises FileError, naming .safetensors for one that would run code."""
    return read_tensors(path, inside=("state_dict",))


def read_folder(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder that diffusers or transformers saved, from its whole or split files."""
    files = weight_files_of(folder, pickles=True)
    return {key: value for file in files for key, value in read_tensors(file).items()}


def load_tokenizer(folder: Path | None):
    """The CLIP tokenizer of a folder. Raises FileError if there is none, or its vocabulary is missing."""
    from transformers import AutoTokenizer

    if folder is None:
        raise FileError("tokenizer: a single checkpoint brings none. Choose a diffusers folder, or connect CLIP.")
    folder = Path(folder)
    name = f"{folder.parent.name}/tokenizer"
    # Without these files transformers makes a tokenizer to which every word is unknown.
    there = next((files for files in VOCABULARIES if any(os.path.lexists(folder / file) for file in files)), ())
    if not there:
        raise FileError(f"{name}: no vocabulary in it (vocab.json and merges.txt). Download the folder again.")
    for file in there:
        existing_file(folder / file, f"{name}/{file}")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # readers of tokenizers raise many kinds for damaged files
        raise FileError(f"{name}: could not be loaded ({why(error)}). Download the folder again.") from error
    if tokenizer.bos_token_id is None or tokenizer.eos_token_id is None:
        raise FileError(f"{name}: it knows no begin and end of a prompt, as CLIP's does. Download the folder again.")
    return tokenizer


def _converted(name: str, convert: Callable[[], tuple]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    # The tables of keys hold for whole parts only; what is left out, or of another shape, ends in any of many errors.
    try:
        return convert()
    except Exception as error:
        raise FileError(f"{name}: not the whole text encoder and VAE of Stable Diffusion 2.x. {NEEDED}") from error


def _check_layers(name: str, config: Mapping[str, Any], field: str, num_tensors: int) -> None:
    # A config of more layers than there are tensors would only build without end.
    layers = config.get(field, 1)
    if not isinstance(layers, int) or not 0 < layers <= num_tensors:
        raise FileError(f"{name}: {field} in config.json is not as the weights are. Download the folder again.")


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in state.items()}
