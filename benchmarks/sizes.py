"""The architectures that are measured: CogVideoX-5B-I2V, and the same in small with its proportions kept."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flexiact_core.flexiact.refadapter import RefAdapter, refadapter_shapes


@dataclass(frozen=True)
class Size:
    """Sizes of a base with what rides on it. Latent frames, and patches (height, width) of one."""

    layers: int
    heads: int
    text_tokens: int
    text_width: int
    rank: int
    latent_frames: int
    patches: tuple[int, int]
    vae_channels: tuple[int, ...]
    text_layers: int
    head_dim: int = 64
    time_width: int = 512

    @property
    def width(self) -> int:
        return self.heads * self.head_dim

    @property
    def video_tokens(self) -> int:
        return self.latent_frames * self.patches[0] * self.patches[1]

    @property
    def frames(self) -> int:
        return (self.latent_frames - 1) * 4 + 1

    @property
    def pixels(self) -> tuple[int, int]:
        """Height and width of the video."""
        return self.patches[0] * 16, self.patches[1] * 16


FULL = Size(42, 48, 226, 4096, 64, 13, (30, 45), (128, 256, 256, 512), 24)
# A sixth of the width and of the tokens, so that attention and projections share the work as at full size.
REDUCED = Size(2, 8, 40, 680, 11, 5, (20, 30), (24, 48, 48, 96), 2, time_width=86)
# One layer of the same with the text, motion and video tokens of full size: long, yet a CPU can wait for it.
LONG = replace(REDUCED, layers=1, text_tokens=226, latent_frames=13)
# Patches of a frame, from 1,040 video tokens in 13 latent frames to full size's 17,550.
GROWTH = [(8, 10), (10, 16), (14, 22), (20, 32), (24, 39), (30, 45)]
TINY = Size(2, 2, 6, 32, 4, 3, (4, 4), (8, 8, 8, 8), 1, head_dim=16, time_width=16)


def make_transformer(size: Size, device: torch.device, dtype: torch.dtype):
    """A frozen CogVideoX image-to-video transformer with random weights."""
    from diffusers import CogVideoXTransformer3DModel

    return _make(
        lambda: CogVideoXTransformer3DModel(
            num_attention_heads=size.heads,
            attention_head_dim=size.head_dim,
            in_channels=32,
            out_channels=16,
            time_embed_dim=size.time_width,
            text_embed_dim=size.text_width,
            num_layers=size.layers,
            sample_width=size.patches[1] * 2,
            sample_height=size.patches[0] * 2,
            sample_frames=size.frames,
            max_text_seq_length=size.text_tokens,
            use_rotary_positional_embeddings=True,
            use_learned_positional_embeddings=True,
        ),
        device,
        dtype,
    )


def make_vae(size: Size, device: torch.device, dtype: torch.dtype):
    """A frozen CogVideoX video autoencoder with random weights."""
    from diffusers import AutoencoderKLCogVideoX

    height, width = size.pixels
    return _make(
        lambda: AutoencoderKLCogVideoX(
            block_out_channels=size.vae_channels,
            layers_per_block=3,
            latent_channels=16,
            norm_num_groups=32 if size is FULL else 8,
            sample_height=height,
            sample_width=width,
            scaling_factor=0.7,
        ),
        device,
        dtype,
    )


def make_text_encoder(size: Size, device: torch.device, dtype: torch.dtype):
    """A frozen T5 encoder with random weights, of the width that the transformer reads."""
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=32128 if size is FULL else 128,
        d_model=size.text_width,
        d_kv=64,
        num_heads=max(1, size.text_width // 64),
        d_ff=size.text_width * 5 // 2,
        num_layers=size.text_layers,
        feed_forward_proj="gated-gelu",
        use_cache=False,
    )
    return _make(lambda: T5EncoderModel(config), device, dtype)


def make_motion_tokens(size: Size, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Random motion tokens (layers, M, width)."""
    return torch.randn(size.layers, size.text_tokens, size.width, device=device, dtype=dtype) * 0.02


def make_refadapter(size: Size, device: torch.device, dtype: torch.dtype) -> RefAdapter:
    """A RefAdapter with random matrices."""
    shapes = refadapter_shapes(size.layers, size.rank, size.width)
    tensors = {key: torch.randn(shape, device=device, dtype=dtype) * 0.01 for key, shape in shapes.items()}
    return RefAdapter(tensors, size.layers, size.rank, size.width)


def _make(build, device: torch.device, dtype: torch.dtype):
    with torch.device(device):
        module = build().to(dtype)
    return module.eval().requires_grad_(False)
