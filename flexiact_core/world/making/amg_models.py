"""The models of the small AMG: the classes of ModelScope's video UNet and of Stable Diffusion 2.1, the sizes shrunk."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ...amg.model import INPUT_CHANNELS
from ...amg.sampling import make_scheduler
from ..takes import take_vocabulary

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet3DConditionModel
    from transformers import CLIPTextModel, PreTrainedTokenizerFast

TEXT_WIDTH = 64
TEXT_TOKENS = 16
UNET_WIDTHS = (48, 96)
HEAD_WIDTH = 16
VAE_WIDTHS = (16, 32, 64, 96)
_MARKS = ("<pad>", "<|startoftext|>", "<|endoftext|>", "<unk>")


def make_amg_vae() -> AutoencoderKL:
    """A fresh AutoencoderKL: 8x in space, 4 channels."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=VAE_WIDTHS,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=8,
        scaling_factor=1.0,
    )


def make_amg_unet() -> UNet3DConditionModel:
    """A fresh UNet3DConditionModel of two levels that reads the avatar beside the noisy video, as AMG's does."""
    from diffusers import UNet3DConditionModel

    return UNet3DConditionModel(
        in_channels=INPUT_CHANNELS,
        block_out_channels=UNET_WIDTHS,
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        # The width of a head, whatever diffusers calls it; the layer behind conv_in has eight. Narrower ones cost more.
        attention_head_dim=HEAD_WIDTH,
        norm_num_groups=8,
    )


def make_amg_text_encoder() -> CLIPTextModel:
    """A fresh CLIPTextModel of width 64 and 2 layers, for the words of `make_amg_tokenizer`."""
    from transformers import CLIPTextConfig, CLIPTextModel

    tokenizer = make_amg_tokenizer()
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=2 * TEXT_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=TEXT_TOKENS,
        hidden_act="gelu",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return CLIPTextModel(config)


@cache
def make_amg_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer with one token for every word that a caption of a take can have; other words are unknown."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = {piece: number for number, piece in enumerate(_MARKS + take_vocabulary())}
    tokenizer = Tokenizer(models.WordLevel(pieces, unk_token=_MARKS[3]))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=_MARKS[0], bos_token=_MARKS[1], eos_token=_MARKS[2], unk_token=_MARKS[3],
        model_max_length=TEXT_TOKENS,
    )  # fmt: skip


def save_amg(folder: Path, *, vae: AutoencoderKL, unet: UNet3DConditionModel, text_encoder: CLIPTextModel) -> None:
    """Writes a diffusers folder with unet, text_encoder, tokenizer, vae and scheduler, weights in fp16."""
    for name, module in {"vae": vae, "unet": unet, "text_encoder": text_encoder}.items():
        copy.deepcopy(module).to("cpu", torch.float16).save_pretrained(folder / name, safe_serialization=True)
    make_amg_tokenizer().save_pretrained(folder / "tokenizer")
    make_scheduler().save_pretrained(folder / "scheduler")
