"""From files to a CogVideoX image-to-video base: recognised by config, keys and shapes, never by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..downloads import find_unfinished
from ..errors import FileError
from ..weight_files import read_shapes, stamp_large
from .family import COGVIDEOX_1_0
from .layouts import read_config, weight_files_of
from .model import CogVideoXI2V
from .parts import Part, check_room, contents_of, make_empty, plan_part
from .sampling import make_scheduler
from .text_encoder import plan_text_encoder
from .tokenizer import load_tokenizer
from .vae import RELEASED, plan_vae

LATENT_CHANNELS = COGVIDEOX_1_0.latent_channels
FLOAT8 = {"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2}

# CogVideoX-5B-I2V's transformer, for single files that come without a config.
COGVIDEOX_5B_I2V = {
    "num_attention_heads": 48,
    "in_channels": 32,
    "num_layers": 42,
    "use_rotary_positional_embeddings": True,
    "use_learned_positional_embeddings": True,
}

# CogVideoX-5B-I2V's scheduler/scheduler_config.json, for parts that come without one.
SCHEDULER = {
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "set_alpha_to_one": True,
    "snr_shift_scale": 1.0,
    "steps_offset": 0,
    "timestep_spacing": "trailing",
}

PARTS = ("text_encoder", "tokenizer", "vae", "scheduler")

_NEEDED = (
    "FlexiAct needs a CogVideoX 1.0 image-to-video base (32 input channels, patches of 2), such as CogVideoX-5b-I2V."
)


def is_base_folder(path: Path) -> bool:
    """Whether a folder holds a transformer in the diffusers layout; what kind it is shows when it is loaded."""
    return (Path(path) / "transformer" / "config.json").is_file()


def load_base(
    source: Path,
    components: Path | None,
    dtype: torch.dtype,
    keep_float8: bool = False,
    *,
    text_encoder: Path | None = None,
    vae: Path | None = None,
    vocabulary: Path | None = None,
    free_bytes: int | None = None,
) -> CogVideoXI2V:
    """The base from a diffusers folder, or a single-file transformer with the rest from the folder `components`.

    text_encoder and vae are single files that go before the parts in `components`, which may then lack them; without
    components at all, both must be there, and the rest is the released base's. vocabulary is a folder with T5's
    vocabulary, for components without a tokenizer.
    All modules are on the CPU, frozen, and compute in `dtype`; float8 weights of a single file stay as they are
    stored, and whoever runs the transformer casts them when they are used. keep_float8 rounds the big matrices of
    other files to float8 (e4m3), which halves the transformer's memory against 16 bits.
    Raises FileError, before any weight is read, if a file is missing, keys or shapes are wrong, the model is of
    another kind, or what reading takes is more than free_bytes.
    """
    source, components = Path(source), None if components is None else Path(components)
    transformer = _plan_transformer(source, components, dtype, keep_float8)
    places = _places(components, text_encoder, vae, vocabulary)
    width = transformer.module.config.text_embed_dim
    encoder = plan_text_encoder(places["text_encoder"], dtype, width)
    parts = (transformer, encoder, plan_vae(places["vae"], dtype, _vae_config(components)))
    scheduler_config = _scheduler_config(components)
    tokenizer = load_tokenizer(places["tokenizer"])
    if len(tokenizer) > encoder.module.config.vocab_size:
        raise FileError(
            f"{places['tokenizer'].parent.name}/tokenizer: {len(tokenizer)} pieces, and the text encoder knows "
            f"{encoder.module.config.vocab_size}. Choose the components of the same model."
        )
    if free_bytes is not None:
        check_room(source.name, parts, free_bytes)
    files = stamp_large(file for part in parts for file in part.files)
    # What is quick to load, and so quick to fail, comes first.
    loaded = {part.kind: part.read() for part in reversed(parts)}
    return CogVideoXI2V(
        scheduler_config=scheduler_config,
        tokenizer=tokenizer,
        vae=loaded["VAE"],
        transformer=loaded["transformer"],
        text_encoder=loaded["text encoder"],
        dtype=dtype,
        files=files,
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


def _find_transformer(source: Path, components: Path | None) -> tuple[dict[str, Any], list[Path]]:
    if source.is_dir():
        config = source / "transformer" / "config.json"
        if not config.exists() and not config.is_symlink() and not find_unfinished(config):
            raise FileError(
                f"{source.name}: no transformer/config.json in it. Download the whole diffusers folder of the model."
            )
        return read_config(config), weight_files_of(source / "transformer")
    shapes = read_shapes(source)
    described = describe_transformer(shapes)
    if not described:
        prefixes = ", ".join(sorted({key.split(".")[0] for key in shapes})[:4])
        raise FileError(
            f"{source.name}: no CogVideoX transformer with diffusers keys in it (keys begin with {prefixes}). {_NEEDED}"
        )
    config = dict(COGVIDEOX_5B_I2V)
    if components is not None and is_base_folder(components):
        config = read_config(components / "transformer" / "config.json")
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
    transformer = CogVideoXTransformer3DModel.from_config(own)
    if spacing is not None:
        transformer.register_to_config(rotary_spacing=spacing)
    return transformer


def _plan_transformer(source: Path, components: Path | None, dtype: torch.dtype, keep_float8: bool) -> Part:
    config, files = _find_transformer(source, components)
    _refuse_other_kinds(source.name, config)
    contents = contents_of(files)
    _check_layers(source.name, config, contents)

    def to_dtype(key: str, ndim: int, stored: str) -> torch.dtype:
        # Only the big matrices are worth keeping small; norms and embeddings are few and sensitive.
        if not key.startswith("transformer_blocks.") or ndim != 2 or ".norm" in key:
            return dtype
        return FLOAT8.get(stored, torch.float8_e4m3fn if keep_float8 else dtype)

    return plan_part(
        source.name,
        "transformer",
        make_empty(f"{source.name}/transformer", lambda: _empty_transformer(config)),
        {file: {key: key for key in table} for file, table in contents.items()},
        contents,
        to_dtype,
        "The file is incomplete or of another model. " + _NEEDED,
    )


def _check_layers(name: str, config: Mapping[str, Any], contents: Mapping[Path, Mapping[str, Any]]) -> None:
    # A config of more layers than there are tensors would only build without end.
    layers, num_tensors = config.get("num_layers"), sum(len(table) for table in contents.values())
    if not isinstance(layers, int) or not 0 < layers <= num_tensors:
        raise FileError(f"{name}: config.json says {layers} layers, the weights have {num_tensors} tensors. {_NEEDED}")


def _places(
    components: Path | None, text_encoder: Path | None, vae: Path | None, vocabulary: Path | None
) -> dict[str, Path]:
    """Where each part lies; raises FileError naming the first that lies nowhere."""
    own = {} if components is None else {part: components / part for part in PARTS if (components / part).is_dir()}
    given = {"text_encoder": text_encoder, "vae": vae}
    places = {"tokenizer": vocabulary} | own | {part: file for part, file in given.items() if file is not None}
    for part in PARTS:
        if places.get(part) is None and (part != "scheduler" or components is not None):
            raise FileError(
                f"{components.name if components else 'components'}: no {part} folder in it. Choose as components a "
                "complete diffusers folder of CogVideoX-5b-I2V (text_encoder, tokenizer, vae, scheduler), or single "
                "files for text encoder and VAE."
            )
    return places


def _vae_config(components: Path | None) -> dict[str, Any]:
    """What a single file of a VAE is: the components' own, where they say it."""
    config = None if components is None else components / "vae" / "config.json"
    return read_config(config) if config is not None and config.is_file() else dict(RELEASED)


def _scheduler_config(components: Path | None) -> dict[str, Any]:
    if components is None:
        return dict(SCHEDULER)
    config = read_config(components / "scheduler" / "scheduler_config.json")
    try:
        make_scheduler(config, "DPM")
    except Exception as error:
        raise FileError(
            f"{components.name}/scheduler/scheduler_config.json: not the settings of a scheduler "
            f"({type(error).__name__}). Download the file again."
        ) from error
    return config
