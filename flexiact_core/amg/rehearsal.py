"""A small AMG with random weights: all parts at work, nothing downloaded. What it makes is noise."""

from __future__ import annotations

import string

import torch

from .model import AMG

LABEL = "random weights (built in, makes noise)"
TEXT_WIDTH = 32


def make_small_amg(dtype: torch.dtype = torch.float32, seed: int = 0, text_width: int = TEXT_WIDTH) -> AMG:
    """The same small model for the same seed: a UNet of two levels and width 8, a VAE and a text encoder to match."""
    from diffusers import AutoencoderKL, UNet3DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    tokenizer = make_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet3DConditionModel(
            in_channels=8,
            block_out_channels=(8, 16),
            down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
            up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
            layers_per_block=1,
            cross_attention_dim=text_width,
            attention_head_dim=4,
            norm_num_groups=4,
        )
        vae = AutoencoderKL(
            block_out_channels=(8, 8, 8, 8),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=1,
            norm_num_groups=4,
            scaling_factor=0.18215,
        )
        words = CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=text_width,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            hidden_act="gelu",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        text_encoder = CLIPTextModel(words)
    for module in (unet, vae, text_encoder):
        if dtype != torch.float32:
            module.to(dtype)
        module.eval().requires_grad_(False)
    return AMG(unet, dtype, text_encoder=text_encoder, tokenizer=tokenizer, vae=vae, name=LABEL)


def make_tokenizer():
    """A tokenizer with a token for each printable letter, and CLIP's begin and end."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<|startoftext|>", "<|endoftext|>", "<unk>"]
    vocabulary = {token: index for index, token in enumerate(special + sorted(string.printable))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=special[1], eos_token=special[2], unk_token="<unk>", model_max_length=77
    )
