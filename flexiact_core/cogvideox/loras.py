"""LoRAs for CogVideoX, in every layout that they are published in, on ComfyUI's model or on diffusers'.

Layouts, of one matrix: transformer.transformer_blocks.0.attn1.to_q.lora_A.weight (diffusers, peft), the same without
the prefix, lora_unet_transformer_blocks_0_attn1_to_q.lora_down.weight (kohya),
transformer_blocks.0.attn1.processor.lora_q.down.weight (FlexiAct's RefAdapter); and each with ComfyUI's own names.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..errors import FileError
from ..modules import add_lora
from ..weight_files import read_metadata, read_tensors
from .native_keys import are_native, to_diffusers, to_native

_PREFIXES = ("base_model.model.", "module.", "transformer.", "model.diffusion_model.", "diffusion_model.")
_KOHYA = ("lora_unet_", "lora_transformer_")
_MATRIX = re.compile(r"(.+)\.(?:lora_(?P<ab>A|B)(?:\.\w+)?\.weight|lora[_.](?P<side>down|up)\.weight|(?P<alpha>alpha))")
_PROCESSOR = re.compile(r"(.+\.attn1)\.processor\.lora_(q|k|v|proj)\.(down|up)\.weight")
_PROJECTIONS = {"q": "to_q", "k": "to_k", "v": "to_v", "proj": "to_out.0"}
# Files in the processor layout hold no alpha; the method that has it fixes alpha / rank.
_PROCESSOR_SCALE = 0.5
_IN_LAYER = (
    "attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0", "ff.net.0.proj", "ff.net.2", "norm1.linear",
    "norm2.linear",
)  # fmt: skip
_WHOLE = (
    "patch_embed.proj", "patch_embed.text_proj", "time_embedding.linear_1", "time_embedding.linear_2",
    "norm_out.linear", "proj_out",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class LoraMatrices:
    """What changes one weight: by scale * up @ down, of down (rank, in) and up (out, rank), on the CPU."""

    down: Tensor
    up: Tensor
    scale: float

    @property
    def rank(self) -> int:
        """The rank of the change."""
        return self.down.shape[0]


@dataclass(frozen=True, eq=False)
class Lora:
    """A LoRA's matrices by the diffusers name of the weight that they change."""

    matrices: Mapping[str, LoraMatrices]
    name: str = ""


def load_lora(path: Path) -> Lora:
    """The LoRA of a .safetensors or .pt file, in any layout named above, in the dtype it was stored in.

    Its scale is alpha / rank where the file holds an alpha or names it in its metadata, as diffusers writes it; 0.5 in
    the RefAdapter's layout, and 1 otherwise.
    Raises FileError if the file cannot be read, or holds no matrices or other ones as well.
    """
    path = Path(path)
    tensors = read_tensors(path)
    alpha_per_rank = alpha_in_metadata(read_metadata(path))
    parts: dict[str, dict[str, Tensor]] = {}
    strange = []
    for key, value in tensors.items():
        if (place := _place_of(key)) is None:
            strange.append(key)
        else:
            parts.setdefault(place[0], {})[place[1]] = value
    if not parts or strange:
        raise FileError(_not_a_lora(path.name, len(tensors), strange))
    return Lora({weight: _matrices(path.name, weight, own, alpha_per_rank) for weight, own in parts.items()}, path.stem)


def check_lora(lora: Lora, shapes: Mapping[str, Sequence[int]]) -> None:
    """Passes if every matrix fits a weight of the transformer, whose shapes are given by diffusers name.

    Raises FileError with the first that does not.
    """
    for weight, own in lora.matrices.items():
        shape = shapes.get(weight)
        changed = (own.up.shape[0], own.down.shape[1])
        if shape is None or tuple(shape[:2]) != changed or len(shape) != 2:
            fits = "no such weight" if shape is None else f"{list(shape)}"
            raise FileError(
                f"LoRA '{lora.name}': changes {weight} of {list(changed)}; the model has {fits}. The LoRA is of "
                "another CogVideoX. Load the model it was trained on."
            )


def with_loras(transformer, loras: Sequence[tuple[Lora, float]], device: torch.device, dtype: torch.dtype):
    """A transformer of diffusers' class, in place: peft's layers on it, each LoRA with its own weight.

    Give a twin of share_weights(). The matrices are copied to `device` and `dtype`, those it computes in.
    """
    from peft.tuners.lora import LoraLayer

    names = [f"lora_{index}" for index in range(len(loras))]
    for name, (lora, _) in zip(names, loras, strict=True):
        own = {weight.removesuffix(".weight"): matrices for weight, matrices in lora.matrices.items()}
        add_lora(
            transformer, name, list(own), rank=1, alpha=1.0,
            ranks={module: matrices.rank for module, matrices in own.items()},
            alphas={module: matrices.scale * matrices.rank for module, matrices in own.items()},
            matrices={f"{module}.lora_A.weight": matrices.down for module, matrices in own.items()}
            | {f"{module}.lora_B.weight": matrices.up for module, matrices in own.items()},
        )  # fmt: skip
    for module in transformer.modules():
        if isinstance(module, LoraLayer):
            module.set_adapter(names, inference_mode=True)
            for name, (_, weight) in zip(names, loras, strict=True):
                module.set_scale(name, weight)
                if name in module.lora_A:
                    for matrix in (module.lora_A[name], module.lora_B[name]):
                        matrix.to(device=device, dtype=dtype)
    return transformer


def _place_of(key: str) -> tuple[str, str] | None:
    """The diffusers name of the weight that a tensor changes, and which part of the change it is; None for others."""
    for prefix in _PREFIXES:
        key = key.removeprefix(prefix)
    if match := _PROCESSOR.fullmatch(key):
        module, projection, side = match.groups()
        return f"{module}.{_PROJECTIONS[projection]}.weight", f"processor_{side}"
    match = _MATRIX.fullmatch(key)
    if match is None:
        return None
    module, side = match[1], match["side"] or {"A": "down", "B": "up"}.get(match["ab"]) or "alpha"
    prefix = next((prefix for prefix in _KOHYA if module.startswith(prefix)), "")
    if prefix:
        module = _from_kohya(module.removeprefix(prefix))
    weight = to_diffusers(f"{module}.weight") if module else ""
    known = re.fullmatch(r"transformer_blocks\.\d+\.(.+)\.weight", weight)
    name = known[1] if known else weight.removesuffix(".weight")
    return (weight, side) if name in (_IN_LAYER if known else _WHOLE) else None


def _from_kohya(name: str) -> str | None:
    """diffusers' or ComfyUI's name of a module whose dots are written as underscores; None if there is none."""
    layer = re.fullmatch(r"((?:transformer_)?blocks)_(\d+)_(.+)", name)
    names = _IN_LAYER if layer else _WHOLE
    rest = layer[3] if layer else name
    natives = [to_native(f"transformer_blocks.0.{own}.").removeprefix("blocks.0.")[:-1] for own in _IN_LAYER]
    table = {own.replace(".", "_"): own for own in (*names, *natives)}
    if rest not in table:
        return None
    return f"{layer[1]}.{layer[2]}.{table[rest]}" if layer else table[rest]


def _matrices(name: str, weight: str, own: Mapping[str, Tensor], alpha_per_rank: float | None) -> LoraMatrices:
    processor = "processor_down" in own or "processor_up" in own
    down, up = (own.get(f"processor_{side}" if processor else side) for side in ("down", "up"))
    if down is None or up is None or down.ndim != 2 or up.ndim != 2 or down.shape[0] != up.shape[1]:
        raise FileError(f"{name}: the two matrices of {weight} do not fit each other. Download the file again.")
    if not (torch.isfinite(down.float()).all() and torch.isfinite(up.float()).all()):
        raise FileError(f"{name}: some values of {weight} are not numbers. Download the file again.")
    scale = _PROCESSOR_SCALE if processor else 1.0
    if alpha_per_rank is not None:
        scale = alpha_per_rank
    if "alpha" in own:
        scale = alpha_of(name, weight, own["alpha"]) / max(1, down.shape[0])
    return LoraMatrices(down, up, scale)


def alpha_of(name: str, weight: str, alpha: Tensor) -> float:
    """The number that a file holds as the alpha of one weight's change. Raises FileError if it is none."""
    if alpha.numel() != 1 or not math.isfinite(alpha.item()):
        raise FileError(f"{name}: the alpha of {weight} is not a number. Download the file again.")
    return float(alpha.item())


def alpha_in_metadata(metadata: Mapping[str, str]) -> float | None:
    """alpha / rank as diffusers writes it beside a LoRA; None where it does not."""
    try:
        settings = json.loads(metadata["lora_adapter_metadata"])
        scale = float(settings["transformer.lora_alpha"]) / float(settings["transformer.r"])
    except (KeyError, TypeError, ValueError, OverflowError, ZeroDivisionError, RecursionError):
        return None
    return scale if math.isfinite(scale) else None


def _not_a_lora(name: str, count: int, strange: Collection[str]) -> str:
    if any("motion_inversion_tokens" in key for key in strange):
        return f"{name}: this is an action. Choose it in Load Action."
    if are_native(strange) or "proj_out.weight" in {to_diffusers(key) for key in strange}:
        return f"{name}: this is a whole model, not a LoRA. Choose it in Load CogVideoX (native)."
    some = ", ".join(sorted(strange)[:3])
    return (
        f"{name}: {len(strange)} of {count} tensors are no LoRA matrices of a CogVideoX transformer "
        f"({some or 'empty'}). Choose a LoRA that was trained on CogVideoX."
    )
