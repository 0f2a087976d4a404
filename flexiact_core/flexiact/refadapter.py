"""RefAdapter: a LoRA on every attention projection, so that any image can condition the video."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..cogvideox.loras import Lora, LoraMatrices, alpha_in_metadata, alpha_of, check_lora, with_loras
from ..cogvideox.model import base_signature, check_learned_on
from ..cogvideox.native_keys import to_diffusers
from ..errors import FileError
from ..modules import add_lora, share_weights
from ..weight_files import check_keys, read_metadata, read_tensors, without_wrapper, write_tensors

if TYPE_CHECKING:
    from diffusers import CogVideoXTransformer3DModel

# Released files hold no alpha; the method fixes alpha / rank (rank 64, alpha 32).
ALPHA_PER_RANK = 0.5
PROJECTIONS = {"q": "to_q", "k": "to_k", "v": "to_v", "proj": "to_out.0"}
_KEY = "transformer_blocks.{layer}.attn1.processor.lora_{projection}.{side}.weight"
_LAYER = r"transformer_blocks\.(0|[1-9]\d{0,3})\."
_KEY_PATTERN = re.compile(_LAYER + r"attn1\.processor\.lora_(q|k|v|proj)\.(down|up)\.weight")
# The same matrices as peft names them, and diffusers before it.
_PEFT_PATTERN = re.compile(
    _LAYER + r"attn1\.(to_q|to_k|to_v|to_out\.0)\.(?:lora_(A|B)(?:\.default)?|lora\.(down|up))\.weight"
)
_ALPHA_PATTERN = re.compile(_LAYER + r"attn1\.(to_q|to_k|to_v|to_out\.0)\.(?:lora\.)?alpha")


@dataclass(frozen=True, eq=False)
class RefAdapter:
    """A RefAdapter's matrices by released key: down (rank, width) and up (width, rank), on the CPU.

    metadata is what its file says of itself.
    """

    tensors: Mapping[str, Tensor]
    num_layers: int
    rank: int
    width: int
    name: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


def load_refadapter(path: Path) -> RefAdapter:
    """The RefAdapter of a released .pt file or a .safetensors file, in the dtype it was stored in.

    The same matrices in peft's or diffusers' names are taken, too. alpha / rank is the method's 0.5 for them as well,
    unless the file holds an alpha, or names it in its metadata as diffusers does: up matrices are then scaled to 0.5.
    Keys may carry what a wrapped model puts before them, such as "module." or "transformer.".
    Raises FileError if the file cannot be read or is no RefAdapter: other keys, layers missing, mixed ranks,
    values that are not numbers.
    """
    path = Path(path)
    tensors = _released_keys(without_wrapper(_in_diffusers_names(read_tensors(path)), "transformer_blocks."))
    tensors, alphas = _without_alphas(path.name, tensors)
    layers = [int(match[1]) for key in tensors if (match := _KEY_PATTERN.fullmatch(key))]
    if not layers:
        raise FileError(f"{path.name}: {_what_else(tensors)}")
    if not all(value.is_floating_point() for value in tensors.values()):
        raise FileError(f"{path.name}: matrices in floating point expected, other numbers found.")
    some_down = next((value for key, value in tensors.items() if key.endswith(".down.weight")), None)
    if some_down is None or some_down.ndim != 2:
        found = "none" if some_down is None else f"shape {list(some_down.shape)}"
        raise FileError(f"{path.name}: matrices expected, {found} found.")
    rank, width = some_down.shape
    num_layers = max(layers) + 1
    found = {key: tuple(value.shape) for key, value in tensors.items()}
    expected = refadapter_shapes(num_layers, rank, width)
    check_keys(path.name, found, expected, "The file is incomplete or no RefAdapter: download it again.")
    if not all(torch.isfinite(value.float()).all() for value in tensors.values()):
        raise FileError(f"{path.name}: some of its values are not numbers. Download it again.")
    metadata = read_metadata(path)
    scales = {key: alpha / rank for key, alpha in alphas.items()}
    tensors = _scaled(tensors, scales, alpha_in_metadata(metadata))
    return RefAdapter(tensors, num_layers, rank, width, path.stem, metadata)


def save_refadapter(adapter: RefAdapter, path: Path, metadata: Mapping[str, str]) -> Path:
    """The .safetensors file written, in the released key layout.

    Raises FileError if it could not be written; a file that was there is then left as it was.
    """
    return write_tensors(adapter.tensors, path, {key: str(value) for key, value in metadata.items()})


def refadapter_shapes(num_layers: int, rank: int, width: int) -> dict[str, tuple[int, int]]:
    """The shape of every matrix of a RefAdapter by released key."""
    return {
        _KEY.format(layer=layer, projection=projection, side=side): shape
        for layer in range(num_layers)
        for projection in PROJECTIONS
        for side, shape in (("down", (rank, width)), ("up", (width, rank)))
    }


def check_refadapter(adapter: RefAdapter, transformer: CogVideoXTransformer3DModel) -> None:
    """Passes if the adapter fits the base. Raises FileError otherwise."""
    config = transformer.config
    expected = (config.num_layers, config.num_attention_heads * config.attention_head_dim)
    if (adapter.num_layers, adapter.width) != expected:
        raise FileError(
            f"RefAdapter '{adapter.name}': made for {adapter.num_layers} layers of width {adapter.width}; the loaded "
            f"base has {expected[0]} layers of width {expected[1]} ({base_signature(transformer)}). "
            "The released RefAdapter needs CogVideoX-5B-I2V."
        )
    check_learned_on(f"RefAdapter '{adapter.name}'", adapter.metadata.get("base"), transformer)


def with_refadapters(
    transformer: CogVideoXTransformer3DModel,
    adapters: Sequence[tuple[RefAdapter | Lora, float]],
    device: torch.device,
    dtype: torch.dtype,
) -> CogVideoXTransformer3DModel:
    """A transformer over the same weights with peft LoRA layers on it; the one given is left as it is.

    Each adapter or LoRA counts with its own weight, as weight * alpha / rank; several add up. Their matrices are copied
    to `device` and `dtype`, those the transformer computes in.
    Raises FileError if one does not fit the base.
    Source: FlexiAct section 3.2.
    """
    for adapter, _ in adapters:
        check_adapter(adapter, transformer)
    if not adapters:
        return transformer
    loras = [(to_lora(adapter), weight) for adapter, weight in adapters]
    return with_loras(share_weights(transformer), loras, device, dtype)


def check_adapter(adapter: RefAdapter | Lora, transformer: CogVideoXTransformer3DModel) -> None:
    """Passes if the adapter or LoRA fits the base. Raises FileError otherwise."""
    if isinstance(adapter, RefAdapter):
        check_refadapter(adapter, transformer)
    else:
        check_lora(adapter, {key: value.shape for key, value in transformer.state_dict(keep_vars=True).items()})


def to_lora(adapter: RefAdapter | Lora) -> Lora:
    """What the adapter changes, by the name of the transformer's weight. A LoRA is given back as it is.

    The weight's change is adapter weight * scale * up @ down: merged into the weights, it costs nothing while sampling.
    """
    if isinstance(adapter, Lora):
        return adapter
    matrices = {}
    for layer in range(adapter.num_layers):
        for projection, module in PROJECTIONS.items():
            down, up = (
                adapter.tensors[_KEY.format(layer=layer, projection=projection, side=side)] for side in ("down", "up")
            )
            matrices[f"transformer_blocks.{layer}.attn1.{module}.weight"] = LoraMatrices(down, up, ALPHA_PER_RANK)
    return Lora(matrices, adapter.name)


def inject_refadapter(transformer: CogVideoXTransformer3DModel, adapter: RefAdapter, name: str) -> None:
    """Adds the adapter's LoRA layers to a transformer in place, under a peft adapter name."""
    add_lora(
        transformer, name, list(PROJECTIONS.values()), rank=adapter.rank, alpha=adapter.rank * ALPHA_PER_RANK,
        matrices={_to_peft_key(key): value for key, value in adapter.tensors.items()},
    )  # fmt: skip


def new_refadapter(num_layers: int, rank: int, width: int, seed: int) -> RefAdapter:
    """An adapter to start training from: random down matrices, up matrices at 0, so that it changes nothing yet."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        key: torch.randn(shape, generator=generator) / rank if ".down." in key else torch.zeros(shape)
        for key, shape in refadapter_shapes(num_layers, rank, width).items()
    }
    return RefAdapter(tensors, num_layers, rank, width)


def learned_matrices(transformer: CogVideoXTransformer3DModel, name: str) -> dict[str, torch.nn.Parameter]:
    """The LoRA matrices that peft holds under an adapter name, by released key."""
    modules = dict(transformer.named_modules())
    matrices = {}
    for layer in range(transformer.config.num_layers):
        for projection, module in PROJECTIONS.items():
            lora = modules[f"transformer_blocks.{layer}.attn1.{module}"]
            for side, holder in (("down", lora.lora_A), ("up", lora.lora_B)):
                key = _KEY.format(layer=layer, projection=projection, side=side)
                matrices[key] = holder[name].weight
    return matrices


def _in_diffusers_names(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    return {to_diffusers(key): value for key, value in tensors.items()}


def _released_keys(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    projections = {module: name for name, module in PROJECTIONS.items()}
    renamed = {}
    for key, value in tensors.items():
        if match := _PEFT_PATTERN.fullmatch(key):
            layer, module, matrix, side = match.groups()
            side = side or {"A": "down", "B": "up"}[matrix]
            key = _KEY.format(layer=layer, projection=projections[module], side=side)
        renamed[key] = value
    return renamed


def _without_alphas(name: str, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, float]]:
    """The matrices, and by the key of its up matrix the alpha that a file holds for a change."""
    projections = {module: name for name, module in PROJECTIONS.items()}
    matrices, alphas = {}, {}
    for key, value in tensors.items():
        if match := _ALPHA_PATTERN.fullmatch(key):
            up = _KEY.format(layer=match[1], projection=projections[match[2]], side="up")
            alphas[up] = alpha_of(name, key.removesuffix(".alpha"), value)
        else:
            matrices[key] = value
    return matrices, alphas


def _scaled(tensors: Mapping[str, Tensor], scales: Mapping[str, float], other: float | None) -> dict[str, Tensor]:
    """The matrices with alpha / rank at ALPHA_PER_RANK: by key where it is not, and for all others, if it is known."""
    factors = {key: scales.get(key, other) for key in tensors if key.endswith(".up.weight")}
    return {
        key: value if factors.get(key) in (None, ALPHA_PER_RANK) else value * (factors[key] / ALPHA_PER_RANK)
        for key, value in tensors.items()
    }


def _what_else(tensors: Mapping[str, Tensor]) -> str:
    if any("motion_inversion_tokens" in key for key in tensors):
        return (
            f"no RefAdapter matrices in it ({len(tensors)} other tensors found). This is an FAE: choose it in Load "
            "Action."
        )
    if any("lora" in key.lower() for key in tensors):
        kohya = any(key.startswith(("lora_unet_", "lora_transformer_")) for key in tensors)
        return (
            f"a LoRA in {'kohya' if kohya else 'other'} names, or of other layers ({len(tensors)} tensors found). A "
            "RefAdapter changes to_q, to_k, to_v and to_out.0 of attn1 in every layer; apply other LoRAs elsewhere, or "
            "convert the file to diffusers' names."
        )
    return f"no RefAdapter matrices in it ({len(tensors)} other tensors found). Choose a RefAdapter file."


def _to_peft_key(key: str) -> str:
    layer, projection, side = _KEY_PATTERN.fullmatch(key).groups()
    matrix = {"down": "lora_A", "up": "lora_B"}[side]
    return f"transformer_blocks.{layer}.attn1.{PROJECTIONS[projection]}.{matrix}.weight"
