"""AMG's parts: the video UNet with eight input channels, what was learned on top of ModelScope's, and how both meet.

Shape letters: C channels, r rank. A LoRA matrix has peft's name: 'X.to_q.lora_A.weight' (r, in) takes the input down,
'X.to_q.lora_B.weight' (out, r) up again; the change of 'X.to_q.weight' is B @ A.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import FileError
from ..modules import add_lora, make_empty, share_weights

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet3DConditionModel
    from transformers import CLIPTextModel, PreTrainedTokenizerBase

LATENT_CHANNELS = 4
# The noisy latents, then the avatar's.
INPUT_CHANNELS = 2 * LATENT_CHANNELS
# Pixels per latent side.
VAE_SCALE = 8
# Frames and pixels per side of the clips that AMG was trained on, and their speed.
TRAINED_FRAMES, TRAINED_SIDE_PX, TRAINED_FPS = 16, 256, 8
RANK = 4
CONV_IN = ("conv_in.weight", "conv_in.bias")
TARGETS = ("to_q", "to_k", "to_v", "to_out.0")


@dataclass(frozen=True, eq=False)
class Adapter:
    """What AMG learned on top of a ModelScope base: LoRA matrices by peft's names, and the new input layer.

    conv_in holds 'conv_in.weight' (C, 8, 3, 3) and 'conv_in.bias' (C,). Empty parts leave the base's as they are.
    """

    lora: Mapping[str, Tensor] = field(default_factory=dict)
    conv_in: Mapping[str, Tensor] = field(default_factory=dict)
    name: str = ""

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by the names that a file gives them."""
        return {**self.lora, **self.conv_in}


@dataclass(frozen=True, eq=False)
class AMG:
    """A loaded AMG; every module on the CPU, in eval mode, frozen. Parts that come from elsewhere are None.

    unet holds the base's weights; what was learned stays beside it until it is applied or injected. reads_avatar is
    False for a ModelScope base that was widened for training and has not seen an avatar yet.
    zero_text (1, S, D) stands for no words in guidance; None: the encoding of an empty prompt.
    """

    unet: UNet3DConditionModel
    dtype: torch.dtype
    adapter: Adapter = field(default_factory=Adapter)
    reads_avatar: bool = True
    text_encoder: CLIPTextModel | None = None
    tokenizer: PreTrainedTokenizerBase | None = None
    vae: AutoencoderKL | None = None
    zero_text: Tensor | None = None
    name: str = ""


def describe_unet(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The config of UNet3DConditionModel that tensors of these shapes, under diffusers' names, belong to.

    Raises FileError if they are of no video UNet of ModelScope's kind.
    """
    first, last = shapes.get("conv_in.weight"), shapes.get("conv_out.weight")
    temporal = shapes.get("transformer_in.proj_in.weight")
    context = shapes.get("mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight")
    if not (first and last and temporal and context):
        prefixes = ", ".join(sorted({key.split(".")[0] for key in shapes})[:4])
        raise FileError(
            f"no video UNet of ModelScope's kind in it (keys begin with {prefixes}). AMG needs "
            "non_ema_0640000.pth, or a ModelScope text-to-video base."
        )
    levels = range(count_numbered(shapes, "down_blocks."))
    attends = [f"down_blocks.{level}.attentions.0.norm.weight" in shapes for level in levels]
    return {
        "in_channels": first[1],
        "out_channels": last[0],
        "block_out_channels": tuple(shapes[f"down_blocks.{level}.resnets.0.conv1.weight"][0] for level in levels),
        "layers_per_block": len({key.split(".")[3] for key in shapes if key.startswith("down_blocks.0.resnets.")}),
        "down_block_types": tuple("CrossAttnDownBlock3D" if does else "DownBlock3D" for does in attends),
        "up_block_types": tuple("CrossAttnUpBlock3D" if does else "UpBlock3D" for does in reversed(attends)),
        "cross_attention_dim": context[1],
        # The layer behind conv_in has eight heads whatever its width.
        "attention_head_dim": temporal[0] // 8,
    }


def count_numbered(keys: Iterable[str], before: str) -> int:
    """How many numbers follow `before` in keys such as down_blocks.0.x: 1 more than the last, if none is left out.

    Raises ValueError if one is no number or left out: a single key must not ask for a table of millions.
    """
    numbers = {int(key[len(before) :].split(".")[0]) for key in keys if key.startswith(before)}
    if numbers != set(range(len(numbers))):
        raise ValueError(f"{before}: numbers are left out")
    return len(numbers)


def empty_unet(config: Mapping[str, Any], name: str = "AMG"):
    """A UNet of this config without weights. Raises FileError, with the name, if it is no config of one."""
    from diffusers import UNet3DConditionModel

    return make_empty(f"{name}/unet", lambda: UNet3DConditionModel.from_config(dict(config)))


def lora_shapes(unet, rank: int) -> dict[str, tuple[int, int]]:
    """Names and shapes of the LoRA matrices that AMG learns: on q, k, v and output of every attention there is."""
    shapes = {}
    for name, module in unet.named_modules():
        if name.endswith(TARGETS) and isinstance(getattr(module, "weight", None), Tensor):
            width_out, width_in = module.weight.shape
            shapes[f"{name}.lora_A.weight"] = (rank, width_in)
            shapes[f"{name}.lora_B.weight"] = (width_out, rank)
    return shapes


def count_learned(unet, rank: int) -> int:
    """How many numbers an adapter of this rank has."""
    conv_in = sum(value.numel() for value in unet.conv_in.parameters())
    return conv_in + sum(width * height for width, height in lora_shapes(unet, rank).values())


def widen_input(weight: Tensor) -> Tensor:
    """Weights (C, 8, 3, 3) of an input layer that reads an avatar too, from (C, 4, 3, 3): the avatar counts 0 at first.

    Source: InstructPix2Pix, section 3.2.
    """
    return torch.cat([weight, torch.zeros_like(weight)], dim=1)


def apply_adapter(unet, adapter: Adapter):
    """A second UNet with the adapter's input layer, whose attention has taken in its LoRA.

    Other weights are shared; the one given is left as it is.
    """
    twin = share_weights(unet)
    if adapter.conv_in:
        twin.conv_in = _copy_layer(unet.conv_in)
        for name in ("weight", "bias"):
            value = adapter.conv_in[f"conv_in.{name}"].to(getattr(unet.conv_in, name))
            setattr(twin.conv_in, name, torch.nn.Parameter(value, requires_grad=False))
    for name, change in lora_changes(adapter.lora).items():
        path, _, leaf = name.rpartition(".")
        parent = twin.get_submodule(path)
        layer = _copy_layer(parent._modules[leaf])
        down, up = (matrix.to(layer.weight.device, torch.float32) for matrix in change)
        layer.weight = torch.nn.Parameter(
            (layer.weight.float() + up @ down).to(layer.weight.dtype), requires_grad=False
        )
        parent._modules[leaf] = layer
    return twin


def lora_changes(lora: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Down (r, in) and up (out, r) by the name of the layer that they change."""
    end = ".lora_A.weight"
    layers = [name.removesuffix(end) for name in lora if name.endswith(end)]
    return {layer: (lora[f"{layer}.lora_A.weight"], lora[f"{layer}.lora_B.weight"]) for layer in layers}


def inject_lora(unet, lora: Mapping[str, Tensor], rank: int = RANK, name: str = "learning"):
    """A second UNet over the same weights with peft's LoRA layers in it; the one given is left as it is.

    With an empty `lora` the new matrices change nothing: down is drawn at random, up is zero.
    """
    twin = share_weights(unet)
    if lora:
        rank = len(next(value for key, value in lora.items() if key.endswith("lora_A.weight")))
    matrices = {key: value.float() for key, value in lora.items()} or None
    add_lora(twin, name, TARGETS, rank=rank, alpha=rank, matrices=matrices)
    return twin


def size_step_px(unet) -> int:
    """Pixels that width and height must be multiples of: the VAE's eight, halved again at each level of the UNet."""
    return VAE_SCALE * 2 ** (len(unet.config.block_out_channels) - 1)


def _copy_layer(layer: torch.nn.Module) -> torch.nn.Module:
    copy = layer.__class__.__new__(layer.__class__)
    copy.__dict__ = dict(layer.__dict__)
    copy._parameters = dict(layer._parameters)
    return copy
