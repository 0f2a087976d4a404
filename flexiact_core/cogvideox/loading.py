"""From files to a CogVideoX image-to-video base: recognised by config, keys and shapes, never by name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..downloads import find_unfinished
from ..errors import FileError
from ..model_folders import read_config, weight_files_of
from ..modules import make_empty
from ..weight_files import read_shapes, stamp_large
from .family import family_of
from .kinds import NEEDED, complete_config, describe_transformer, empty_transformer, refuse_other_kinds
from .model import CogVideoXI2V
from .native_keys import to_diffusers
from .parts import Part, check_room, contents_of, plan_part
from .sampling import make_scheduler
from .text_encoder import plan_text_encoder
from .tokenizer import Tokenizer, load_tokenizer
from .vae import RELEASED, plan_vae

FLOAT8 = {"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2}

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


def is_base_folder(path: Path) -> bool:
    """Whether a folder holds a transformer in the diffusers layout; what kind it is shows when it is loaded."""
    return os.path.isfile(Path(path) / "transformer" / "config.json")


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
    plan = plan_base(source, components, dtype, keep_float8, text_encoder=text_encoder, vae=vae, vocabulary=vocabulary)
    if free_bytes is not None:
        check_room(Path(source).name, plan.parts, free_bytes)
    files = stamp_large(file for part in plan.parts for file in part.files)
    # What is quick to load, and so quick to fail, comes first.
    loaded = {part.kind: part.read() for part in reversed(plan.parts)}
    return CogVideoXI2V(
        scheduler_config=plan.scheduler_config,
        tokenizer=plan.tokenizer,
        vae=loaded["VAE"],
        transformer=loaded["transformer"],
        text_encoder=loaded["text encoder"],
        dtype=dtype,
        files=files,
    )


@dataclass(frozen=True, eq=False)
class PlannedBase:
    """A base whose files are known and checked, and whose weights are not read yet."""

    transformer: Part
    text_encoder: Part
    vae: Part
    tokenizer: Tokenizer
    scheduler_config: Mapping[str, Any]

    @property
    def parts(self) -> tuple[Part, Part, Part]:
        """What has weights."""
        return self.transformer, self.text_encoder, self.vae


def plan_base(
    source: Path,
    components: Path | None,
    dtype: torch.dtype | None = None,
    keep_float8: bool = False,
    *,
    text_encoder: Path | None = None,
    vae: Path | None = None,
    vocabulary: Path | None = None,
) -> PlannedBase:
    """The base that load_base() would read. dtype None keeps every tensor in the format it is stored in.

    Raises FileError as load_base() does.
    """
    source, components = Path(source), None if components is None else Path(components)
    transformer = plan_transformer(source, components, dtype, keep_float8)
    places = _places(components, text_encoder, vae, vocabulary)
    width = transformer.module.config.text_embed_dim
    encoder = plan_text_encoder(places["text_encoder"], dtype, width)
    autoencoder = plan_vae(places["vae"], dtype, _vae_config(components, transformer.module))
    scheduler_config = _scheduler_config(components)
    tokenizer = _load_tokenizer(places["tokenizer"], encoder.module.config.vocab_size)
    return PlannedBase(transformer, encoder, autoencoder, tokenizer, scheduler_config)


def _find_transformer(source: Path, components: Path | None) -> tuple[dict[str, Any], list[Path]]:
    if source.is_dir():
        config = source / "transformer" / "config.json"
        if not config.exists() and not config.is_symlink() and not find_unfinished(config):
            raise FileError(
                f"{source.name}: no transformer/config.json in it. Download the whole diffusers folder of the model."
            )
        return read_config(config), weight_files_of(source / "transformer")
    shapes = {to_diffusers(key): shape for key, shape in read_shapes(source).items()}
    described = describe_transformer(shapes)
    if not described:
        prefixes = ", ".join(sorted({key.split(".")[0] for key in shapes})[:4])
        raise FileError(f"{source.name}: no CogVideoX transformer in it (keys begin with {prefixes}). {NEEDED}")
    return complete_config(described, _transformer_beside(components)), [source]


def transformer_config(source: Path, components: Path | None) -> dict[str, Any]:
    """The config of the transformer that load_base() would read; weights are not looked at.

    Raises FileError if it cannot be read.
    """
    return _transformer_beside(source) or _find_transformer(source, components)[0]


def plan_transformer(
    source: Path, components: Path | None, dtype: torch.dtype | None, keep_float8: bool = False
) -> Part:
    """The transformer of plan_base() alone; the arguments and errors are its."""
    config, files = _find_transformer(source, components)
    contents = contents_of(files)
    keys = {to_diffusers(key) for table in contents.values() for key in table}
    refuse_other_kinds(source.name, config, keys)
    _check_components(source.name, config, components)
    _check_layers(source.name, config, contents)

    def to_dtype(key: str, ndim: int, stored: str) -> torch.dtype | None:
        # Only the big matrices are worth keeping small; norms and embeddings are few and sensitive.
        if dtype is None or not key.startswith("transformer_blocks.") or ndim != 2 or "norm" in key:
            return dtype
        return FLOAT8.get(stored, torch.float8_e4m3fn if keep_float8 else dtype)

    return plan_part(
        source.name,
        "transformer",
        make_empty(f"{source.name}/transformer", lambda: empty_transformer(config, keys)),
        {file: {key: to_diffusers(key) for key in table} for file, table in contents.items()},
        contents,
        to_dtype,
        "The file is incomplete or of another model. " + NEEDED,
    )


def _transformer_beside(components: Path | None) -> dict[str, Any] | None:
    """The config of the transformer that the components came with."""
    if components is None or not is_base_folder(components):
        return None
    return read_config(components / "transformer" / "config.json")


def _check_components(name: str, config: Mapping[str, Any], components: Path | None) -> None:
    beside = _transformer_beside(components)
    if beside is None or beside.get("patch_size_t") == config.get("patch_size_t"):
        return
    other, own = ("1.0", "1.5") if beside.get("patch_size_t") is None else ("1.5", "1.0")
    raise FileError(
        f"{components.name}: these components are of CogVideoX {other}, the transformer {name} is of {own}. Choose a "
        f"folder of {own} under components."
    )


def _check_layers(name: str, config: Mapping[str, Any], contents: Mapping[Path, Mapping[str, Any]]) -> None:
    # A config of more layers than there are tensors would only build without end.
    layers, num_tensors = config.get("num_layers"), sum(len(table) for table in contents.values())
    if not isinstance(layers, int) or not 0 < layers <= num_tensors:
        raise FileError(f"{name}: config.json says {layers} layers, the weights have {num_tensors} tensors. {NEEDED}")


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
                "complete diffusers folder of the same CogVideoX (text_encoder, tokenizer, vae, scheduler), or single "
                "files for text encoder and VAE."
            )
    return places


def _load_tokenizer(folder: Path, num_embeddings: int) -> Tokenizer:
    tokenizer = load_tokenizer(folder)
    if len(tokenizer) > num_embeddings:
        raise FileError(
            f"{folder.parent.name}/{folder.name}: {len(tokenizer)} pieces, and the text encoder knows "
            f"{num_embeddings}. Choose the components of the same model."
        )
    return tokenizer


def _vae_config(components: Path | None, transformer: Mapping[str, Any]) -> dict[str, Any]:
    """What a single file of a VAE is: the components' own, where they say it, else the transformer's family's."""
    config = None if components is None else components / "vae" / "config.json"
    if config is not None and config.is_file():
        return read_config(config)
    return RELEASED | {"invert_scale_latents": family_of(transformer.config).invert_scale_latents}


def _scheduler_config(components: Path | None) -> dict[str, Any]:
    if components is None:
        return dict(SCHEDULER)
    config = read_config(components / "scheduler" / "scheduler_config.json")
    try:
        make_scheduler(config, "DPM")
    except Exception as error:  # a config may hold anything, and what is made of it may fail anywhere
        raise FileError(
            f"{components.name}/scheduler/scheduler_config.json: not the settings of a scheduler "
            f"({type(error).__name__}). Download the file again."
        ) from error
    return config
