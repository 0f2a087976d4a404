"""Rules between the names of the released video UNet (VGen's, ModelScope's) and those of diffusers.

Released names count blocks along one path: input_blocks.N, middle_block.N, output_blocks.N. What level and layer a
block is shows in the blocks before it: each one that only halves the size (`.op.`) ends a level.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from ..errors import FileError

# Of a residual block, in the order in which the authors' Sequential counts them.
_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_OUTSIDE = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "input_blocks.0.1": "transformer_in",
    "middle_block.0": "mid_block.resnets.0",
    "middle_block.1": "mid_block.attentions.0",
    "middle_block.2": "mid_block.temp_attentions.0",
    "middle_block.3": "mid_block.resnets.1",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
_KINDS = ("resnets", "attentions", "temp_attentions")
_LORA = re.compile(r"\.to_(q|k|v|out)_lora\.(down|up)_linear\.weight$")
_SIDES = {"down": "lora_A", "up": "lora_B"}
_MARK = "input_blocks.0.0.weight"


def has_released_names(names: Iterable[str]) -> bool:
    """Whether these are names of the released files, and not of diffusers."""
    return _MARK in set(names)


def diffusers_names(names: Iterable[str], file: str = "file") -> dict[str, str]:
    """The diffusers name of each released name; LoRA matrices get peft's names, `...to_q.lora_A.weight`.

    Raises FileError naming the first few that no rule knows: the file is of another model.
    """
    names = list(names)
    places = dict(_OUTSIDE) | _places(names)
    renamed, unknown = {}, []
    for name in names:
        place = next((place for place in _prefixes(name) if place in places), None)
        if place is None:
            unknown.append(name)
        else:
            renamed[name] = _inside(places[place], name[len(place) :])
    if unknown:
        raise FileError(
            f"{file}: {len(unknown)} keys are of no video UNet of ModelScope's kind ({', '.join(unknown[:3])}). "
            "AMG needs non_ema_0640000.pth, or a ModelScope text-to-video base."
        )
    return renamed


def to_diffusers(state: Mapping[str, Tensor], file: str = "file") -> dict[str, Tensor]:
    """The tensors under diffusers' names. Temporal projections, 1x1 convolutions [o, i, 1], become matrices [o, i].

    Raises FileError as diffusers_names does.
    """
    renamed = diffusers_names(state, file)
    return {renamed[name]: _as_matrix(renamed[name], tensor) for name, tensor in state.items()}


def diffusers_shape(name: str, shape: Iterable[int]) -> tuple[int, ...]:
    """The shape that a released tensor has under its diffusers name."""
    shape = tuple(shape)
    return shape[:2] if _is_projection(name) and len(shape) == 3 else shape


def _as_matrix(name: str, tensor: Tensor) -> Tensor:
    return tensor.squeeze(-1) if _is_projection(name) and tensor.ndim == 3 else tensor


def _is_projection(name: str) -> bool:
    return name.endswith(("proj_in.weight", "proj_out.weight"))


def _places(names: list[str]) -> dict[str, str]:
    """Where each numbered block lies in diffusers: 'input_blocks.4.1' -> 'down_blocks.1.attentions.0'."""
    places: dict[str, str] = {}
    level = layer = layers = 0
    for number in _numbers(names, "input_blocks", first=1):
        block = f"input_blocks.{number}"
        if f"{block}.op.weight" in names:
            places[f"{block}.op"] = f"down_blocks.{level}.downsamplers.0.conv"
            level, layer = level + 1, 0
            continue
        places |= {f"{block}.{part}": f"down_blocks.{level}.{kind}.{layer}" for part, kind in enumerate(_KINDS)}
        layer += 1
        layers = max(layers, layer)
    for number in _numbers(names, "output_blocks", first=0):
        block = f"output_blocks.{number}"
        # A way up has one layer more than a way down: each takes what a layer or the halving left for it.
        level, layer = divmod(number, layers + 1)
        places |= {f"{block}.{part}": f"up_blocks.{level}.{kind}.{layer}" for part, kind in enumerate(_KINDS)}
        for part in (1, 3):  # last in its block, behind attentions where the level has them
            if f"{block}.{part}.conv.weight" in names:
                places[f"{block}.{part}"] = f"up_blocks.{level}.upsamplers.0"
    return places


def _numbers(names: list[str], path: str, first: int) -> list[int]:
    found = {int(name.split(".")[1]) for name in names if re.match(rf"{path}\.\d+\.", name)}
    return sorted(number for number in found if number >= first)


def _prefixes(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(min(3, len(parts)), 0, -1)]


def _inside(place: str, rest: str) -> str:
    if rest.startswith(".temopral_conv"):  # spelt so in the released files
        return place.replace(".resnets.", ".temp_convs.") + rest.removeprefix(".temopral_conv")
    if ".resnets." in place:
        for released, ours in _RESNET.items():
            if rest.startswith(f".{released}."):
                return f"{place}.{ours}{rest[len(released) + 1 :]}"
    if match := _LORA.search(rest):
        projection = "to_out.0" if match[1] == "out" else f"to_{match[1]}"
        return f"{place}{rest[: match.start()]}.{projection}.{_SIDES[match[2]]}.weight"
    return place + rest
