"""From files to a CogVideoX image-to-video base: recognised by config, keys and shapes, never by name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import FileError
from ..weight_files import check_keys, read_shapes, read_tensors
from .family import COGVIDEOX_1_0
from .model import CogVideoXI2V
from .tokenizer import load_tokenizer

LATENT_CHANNELS = COGVIDEOX_1_0.latent_channels
FP8_DTYPES = (torch.float8_e4m3fn, torch.float8_e5m2)

# CogVideoX-5B-I2V's transformer, for single files that come without a config.
COGVIDEOX_5B_I2V = {
    "num_attention_heads": 48,
    "in_channels": 32,
    "num_layers": 42,
    "use_rotary_positional_embeddings": True,
    "use_learned_positional_embeddings": True,
}

_NEEDED = (
    "FlexiAct needs a CogVideoX 1.0 image-to-video base (32 input channels, patches of 2), such as CogVideoX-5b-I2V."
)


def is_base_folder(path: Path) -> bool:
    """Whether a folder holds a transformer in the diffusers layout; what kind it is shows when it is loaded."""
    return (Path(path) / "transformer" / "config.json").is_file()


def load_base(source: Path, components: Path, dtype: torch.dtype, keep_float8: bool = False) -> CogVideoXI2V:
    """The base from a diffusers folder, or a single-file transformer with the rest from the folder `components`.

    All modules are on the CPU, frozen, and compute in `dtype`; float8 weights of a single file stay as they are
    stored, and whoever runs the transformer casts them when they are used. keep_float8 rounds the big matrices of
    other files to float8 (e4m3), which halves the transformer's memory against 16 bits.
    Raises FileError, before any weight is read, if a file is missing, keys or shapes are wrong, or the model is
    of another kind.
    """
    source, components = Path(source), Path(components)
    config, files = _find_transformer(source, components)
    _refuse_other_kinds(source.name, config)
    empty = _empty_transformer(config)
    expected = {key: tuple(value.shape) for key, value in empty.state_dict().items()}
    found: dict[str, tuple[int, ...]] = {}
    for file in files:
        found |= read_shapes(file)
    check_keys(source.name, found, expected, "The file is incomplete or of another model. " + _NEEDED)
    for part in ("text_encoder", "tokenizer", "vae", "scheduler"):
        if not (components / part).is_dir():
            raise FileError(
                f"{components.name}: no {part} folder in it. Choose as components a complete diffusers folder of "
                "CogVideoX-5b-I2V (text_encoder, tokenizer, vae, scheduler)."
            )
    _check_text_encoder(components, config)
    # What is quick to load, and so quick to fail, comes first.
    return CogVideoXI2V(
        scheduler_config=_read_json(components / "scheduler" / "scheduler_config.json"),
        tokenizer=load_tokenizer(components / "tokenizer"),
        vae=_load_vae(components, dtype),
        transformer=_load_transformer(empty, files, dtype, keep_float8),
        text_encoder=_load_text_encoder(components, dtype),
        dtype=dtype,
    )


def describe_transformer(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The parts of a CogVideoX transformer config that its tensors' shapes tell; empty if they are of no CogVideoX."""
    patch, text = shapes.get("patch_embed.proj.weight"), shapes.get("patch_embed.text_proj.weight")
    norm = shapes.get("transformer_blocks.0.attn1.norm_q.weight")
    time = shapes.get("time_embedding.linear_2.weight")
    if not (patch and text and norm and time):
        return {}
    width, head_dim = patch[0], norm[0]
    layers = {key.split(".")[1] for key in shapes if key.startswith("transformer_blocks.")}
    described = {
        "num_attention_heads": width // head_dim,
        "attention_head_dim": head_dim,
        "num_layers": len(layers),
        "text_embed_dim": text[1],
        "time_embed_dim": time[0],
        "use_learned_positional_embeddings": "patch_embed.pos_embedding" in shapes,
    }
    if "ofs_embedding.linear_1.weight" in shapes or len(patch) == 2:
        return described | {"patch_size_t": 2, "in_channels": patch[1] // 8}
    return described | {"ofs_embed_dim": None, "patch_size_t": None, "patch_size": patch[-1], "in_channels": patch[1]}


def _find_transformer(source: Path, components: Path) -> tuple[dict[str, Any], list[Path]]:
    if source.is_dir():
        if not is_base_folder(source):
            raise FileError(
                f"{source.name}: no transformer/config.json in it. Download the whole diffusers folder of the model."
            )
        return _read_json(source / "transformer" / "config.json"), _weight_files(source / "transformer")
    shapes = read_shapes(source)
    described = describe_transformer(shapes)
    if not described:
        prefixes = ", ".join(sorted({key.split(".")[0] for key in shapes})[:4])
        raise FileError(
            f"{source.name}: no CogVideoX transformer with diffusers keys in it (keys begin with {prefixes}). {_NEEDED}"
        )
    config = dict(COGVIDEOX_5B_I2V)
    if is_base_folder(components):
        config = _read_json(components / "transformer" / "config.json")
    return config | described, [source]


def _refuse_other_kinds(name: str, config: Mapping[str, Any]) -> None:
    kind = config.get("_class_name", "CogVideoXTransformer3DModel")
    if kind != "CogVideoXTransformer3DModel":
        raise FileError(f"{name}: the transformer is a {kind}, no CogVideoX. {_NEEDED}")
    in_channels = config.get("in_channels", 16)
    if config.get("patch_size_t") is not None or config.get("ofs_embed_dim"):
        raise FileError(f"{name}: this is a CogVideoX 1.5 model (patches span two frames). {_NEEDED}")
    if config.get("num_layers", 30) == 30 and config.get("num_attention_heads", 30) == 30:
        raise FileError(
            f"{name}: this is a CogVideoX-2B model (30 layers of width 1920, {in_channels} input channels). {_NEEDED}"
        )
    if in_channels == LATENT_CHANNELS:
        raise FileError(f"{name}: this is a text-to-video model (16 input channels, no image input). {_NEEDED}")
    if in_channels != 2 * LATENT_CHANNELS:
        raise FileError(
            f"{name}: {in_channels} input channels found, as inpainting and control models have them. {_NEEDED}"
        )
    if not config.get("use_rotary_positional_embeddings"):
        raise FileError(f"{name}: the transformer has no rotary positions. {_NEEDED}")


def _empty_transformer(config: Mapping[str, Any]):
    from diffusers import CogVideoXTransformer3DModel

    own = dict(config)
    spacing = own.pop("rotary_spacing", None)  # ours: diffusers would warn that it does not know it
    with torch.device("meta"):
        transformer = CogVideoXTransformer3DModel.from_config(own)
    if spacing is not None:
        transformer.register_to_config(rotary_spacing=spacing)
    return transformer


def _load_transformer(empty, files: list[Path], dtype: torch.dtype, keep_float8: bool):
    state: dict[str, Tensor] = {}
    for file in files:
        state |= {key: _to_storage(key, tensor, dtype, keep_float8) for key, tensor in read_tensors(file).items()}
    empty.load_state_dict(state, strict=True, assign=True)
    return empty.eval().requires_grad_(False)


def _to_storage(key: str, tensor: Tensor, dtype: torch.dtype, keep_float8: bool) -> Tensor:
    # Only the big matrices are worth keeping small; norms and embeddings are few and sensitive.
    is_block_matrix = key.startswith("transformer_blocks.") and tensor.ndim == 2 and ".norm" not in key
    if not is_block_matrix:
        return tensor.to(dtype)
    if tensor.dtype in FP8_DTYPES:
        return tensor
    return tensor.to(FP8_DTYPES[0] if keep_float8 else dtype)


def _load_vae(components: Path, dtype: torch.dtype):
    from diffusers import AutoencoderKLCogVideoX

    folder = components / "vae"
    config = _read_json(folder / "config.json")
    with torch.device("meta"):
        vae = AutoencoderKLCogVideoX.from_config(config)
    if vae.config.latent_channels != LATENT_CHANNELS:
        raise FileError(
            f"{components.name}: its VAE has {vae.config.latent_channels} latent channels, {LATENT_CHANNELS} needed. "
            + _NEEDED
        )
    state: dict[str, Tensor] = {}
    for file in _weight_files(folder):
        state |= read_tensors(file)
    expected = {key: tuple(value.shape) for key, value in vae.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in state.items()}
    check_keys(f"{components.name}/vae", found, expected, "Download the vae folder again.")
    vae.load_state_dict({key: value.to(dtype) for key, value in state.items()}, strict=True, assign=True)
    return vae.eval().requires_grad_(False)


def _check_text_encoder(components: Path, config: Mapping[str, Any]) -> None:
    folder = components / "text_encoder"
    for file in _weight_files(folder):
        read_shapes(file)
    found, width = _read_json(folder / "config.json").get("d_model"), config.get("text_embed_dim", 4096)
    if found != width:
        raise FileError(
            f"{components.name}/text_encoder: embeddings of width {found}; the transformer reads {width}. "
            "Choose the components of the same model."
        )


def _load_text_encoder(components: Path, dtype: torch.dtype):
    import transformers

    dtype_name = "dtype" if int(transformers.__version__.split(".")[0]) >= 5 else "torch_dtype"
    try:
        encoder, report = transformers.T5EncoderModel.from_pretrained(
            components / "text_encoder",
            **{dtype_name: dtype},
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise FileError(
            f"{components.name}/text_encoder: could not be loaded ({error}). Download the folder again."
        ) from error
    if report["missing_keys"]:
        missing = ", ".join(sorted(report["missing_keys"])[:3])
        raise FileError(f"{components.name}/text_encoder: weights missing ({missing}). Download the folder again.")
    return encoder.eval().requires_grad_(False)


def _weight_files(folder: Path) -> list[Path]:
    index = next(folder.glob("*.safetensors.index.json"), None)
    if index is not None:
        files = sorted({folder / name for name in _read_json(index).get("weight_map", {}).values()})
    else:
        # Variants such as model.fp16.safetensors stand beside the plain file.
        plain = [file for file in sorted(folder.glob("*.safetensors")) if file.name.count(".") == 1]
        files = plain[:1] or sorted(folder.glob("*.safetensors"))[:1]
    missing = [file.name for file in files if not file.is_file()]
    if missing or not files:
        what = ", ".join(missing) or "a .safetensors file"
        raise FileError(f"{folder.parent.name}/{folder.name}: {what} is missing. Download the folder again.")
    return files


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FileError(
            f"{path.parent.parent.name}/{path.parent.name}/{path.name}: missing or not readable ({error}). "
            "Download the folder again."
        ) from error
