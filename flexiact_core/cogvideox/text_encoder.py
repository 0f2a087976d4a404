"""The text encoder T5-v1.1-XXL, from a diffusers folder or from a single file as ComfyUI has it in text_encoders."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import FileError
from ..model_folders import read_config, weight_files_of
from ..modules import make_empty
from ..weight_files import StoredTensor, open_safetensors
from .parts import Part, contents_of, plan_part

FIRST_BLOCK = "encoder.block.0."

_NEEDED = "CogVideoX reads T5-v1.1-XXL (24 blocks of width 4096), such as t5xxl_fp16.safetensors."
_MATRIX = FIRST_BLOCK + "layer.0.SelfAttention.q.weight"
# Of a config, what makes the module; the rest (how to download, quantize or run it) is not followed.
_FIELDS = (
    "d_model", "d_kv", "d_ff", "num_layers", "num_heads", "relative_attention_num_buckets", "vocab_size",
    "relative_attention_max_distance", "layer_norm_epsilon", "feed_forward_proj", "dropout_rate",
)  # fmt: skip
# Tensors of such files that are no weights of the encoder.
_OTHERS = ("decoder.", "lm_head.", "logit_scale", "spiece_model", "scaled_fp8")
_SCALES = (".scale_weight", ".weight_scale")
_UNUSED = (".scale_input", ".input_scale", ".comfy_quant")


def plan_text_encoder(source: Path, dtype: torch.dtype | None, width: int) -> Part:
    """The encoder in a folder with config.json, or in a .safetensors file, ready to be read in `dtype`.

    width is that of the embeddings the transformer reads. A file may hold float8 weights with a scale each; they are
    read as `dtype`.
    Raises FileError if it cannot be read or is another model.
    """
    if source.is_dir():
        name = f"{source.parent.name}/{source.name}"
        config, files = read_config(source / "config.json"), weight_files_of(source)
        hint = "Download the folder again."
    else:
        name, files, config = source.name, [source], {}
        hint = _NEEDED
    contents = contents_of(files)
    keys, scales = _module_names(name, contents)
    shapes = {key: contents[file][own].shape for file, names in keys.items() for own, key in names.items()}
    config = config or describe_text_encoder(shapes)
    if not config:
        raise FileError(f"{name}: no T5 encoder in it. {hint}")
    _check_kind(name, config, shapes, width)
    settings = {key: value for key, value in config.items() if key in _FIELDS}

    def make() -> torch.nn.Module:
        from transformers import T5Config, T5EncoderModel

        return T5EncoderModel(
            T5Config(**settings, is_encoder_decoder=False, use_cache=False, tie_word_embeddings=False)
        )

    def to_dtype(key: str, _ndim: int, _stored: str) -> torch.dtype | None:
        # These overflow in float16, also in transformers' own loading.
        return torch.float32 if dtype == torch.float16 and key.endswith(".wo.weight") else dtype

    module = make_empty(name, make)
    return plan_part(name, "text encoder", module, keys, contents, to_dtype, hint, scales)


def describe_text_encoder(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The config of a T5 encoder that its tensors' shapes tell; empty if they are of none."""
    embedding = shapes.get("shared.weight") or shapes.get("encoder.embed_tokens.weight")
    bias = shapes.get(FIRST_BLOCK + "layer.0.SelfAttention.relative_attention_bias.weight")
    query, inner = shapes.get(_MATRIX), shapes.get(FIRST_BLOCK + "layer.1.DenseReluDense.wo.weight")
    tables = (embedding, bias, query, inner)
    if any(table is None or len(table) != 2 for table in tables) or not bias[1]:
        return {}
    gated = FIRST_BLOCK + "layer.1.DenseReluDense.wi_0.weight" in shapes
    return {
        "vocab_size": embedding[0],
        "d_model": embedding[1],
        "num_heads": bias[1],
        "relative_attention_num_buckets": bias[0],
        "d_kv": query[0] // bias[1],
        "d_ff": inner[1],
        "num_layers": len({key.split(".")[2] for key in shapes if key.startswith("encoder.block.")}),
        "feed_forward_proj": "gated-gelu" if gated else "relu",
    }


def _check_kind(name: str, config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], width: int) -> None:
    if config.get("d_model") != width:
        raise FileError(
            f"{name}: embeddings of width {config.get('d_model')}; the transformer reads {width}. Choose the "
            "components of the same model."
        )
    pieces, layers = config.get("vocab_size", 32128), config.get("num_layers", 24)
    if not isinstance(pieces, int) or pieces > 40_000:
        raise FileError(f"{name}: a vocabulary of {pieces} pieces, as UMT5 has. {_NEEDED}")
    # A config of more layers than there are tensors would only build without end.
    if not isinstance(layers, int) or not 0 < layers <= len(shapes):
        raise FileError(
            f"{name}: {layers} blocks in config.json, {len(shapes)} tensors found. Download the folder again."
        )


def _module_names(
    name: str, contents: Mapping[Path, Mapping[str, StoredTensor]]
) -> tuple[dict[Path, dict[str, str]], dict[str, str]]:
    """By file, the module's name of each tensor of the encoder; and which tensor scales which."""
    names = [key for table in contents.values() for key in table]
    wrapper = next((key.partition(_MATRIX)[0] for key in names if key.endswith(_MATRIX)), "")
    keys: dict[Path, dict[str, str]] = {}
    scales: dict[str, str] = {}
    for file, table in contents.items():
        own = {key: key.removeprefix(wrapper) for key in table if key.startswith(wrapper)}
        _check_quantization(name, file, own)
        keys[file] = {}
        for key, plain in own.items():
            ending = next((ending for ending in _SCALES if plain.endswith(ending)), "")
            if ending:
                scales[plain.removesuffix(ending) + ".weight"] = key
            elif not plain.startswith(_OTHERS) and not plain.endswith(_UNUSED):
                keys[file][key] = plain
    return keys, scales


def _check_quantization(name: str, file: Path, own: Mapping[str, str]) -> None:
    """Passes if the file's quantized tensors, if there are any, are float8 ones with one scale each."""
    marks = [key for key, plain in own.items() if plain.endswith(".comfy_quant")]
    if not marks:
        return
    with open_safetensors(file) as opened:
        for key in marks:
            try:
                kind = json.loads(bytes(opened.get_tensor(key).tolist()).decode("utf-8"))["format"]
            except (ValueError, KeyError, TypeError, RecursionError):
                kind = ""
            if kind not in ("float8_e4m3fn", "float8_e5m2"):
                raise FileError(
                    f"{name}: quantized in a way that is not read here. Choose a file in bf16, fp16 or fp8."
                )
