"""How many bytes a piece of work takes beside the weights: estimates, made before it starts.

Shape letters: L latent frames, C channels, h w latent height and width.
"""

from __future__ import annotations

from collections.abc import Sequence

from .acceleration import Acceleration
from .model import CogVideoXI2V


def transformer_bytes(
    base: CogVideoXI2V,
    num_latent_frames: int,
    latent_height: int,
    latent_width: int,
    batch: int,
    acceleration: Acceleration | None = None,
) -> int:
    """An estimate of what one forward of the transformer needs beside its weights, with what an Acceleration holds."""
    config = base.transformer.config
    patch = config.patch_size**2 * (config.patch_size_t or 1)
    num_video = num_latent_frames * latent_height * latent_width // patch
    tokens = config.max_text_seq_length + num_video
    width = config.num_attention_heads * config.attention_head_dim
    # The feed-forward layer alone holds four widths in and out; q, k, v and the residuals come on top.
    values, itemsize = batch * tokens * width, base.dtype.itemsize
    # What the poses add to a layer is made from what they added to the one before; one pass serves both of guidance.
    poses = 3 * num_video * width * itemsize if base.family.pose_norms else 0
    return values * 16 * itemsize + poses + (acceleration.held_bytes(values, itemsize) if acceleration else 0)


def training_bytes(
    base: CogVideoXI2V, shape: Sequence[int], batch_size: int, num_learned: int, adapters: bool = False
) -> tuple[int, int]:
    """An estimate of what a training step needs beside the weights: without and with gradient checkpointing.

    shape is that of the video latents, (clips, L, C, h, w); num_learned counts the numbers that are learned, adapters
    says whether they lie beside the attention's projections (LoRA).
    Without checkpointing every layer's activations are kept; with it, one layer's and every layer's input.
    """
    num_layers = base.transformer.config.num_layers
    layer_bytes = transformer_bytes(base, shape[1], *shape[-2:], batch_size)
    # A layer's input is one of the sixteen tensors that an estimate of a layer counts.
    whole, checkpointed = layer_bytes * num_layers, layer_bytes * (32 + num_layers) // 16
    if adapters:
        # peft keeps the input of each projection in float32, too.
        whole = whole * 3 // 2
    # In float32, with gradient and two moments.
    learned = 4 * 4 * num_learned
    return whole + learned, checkpointed + learned


def encode_bytes(base: CogVideoXI2V, num_frames: int, height_px: int, width_px: int) -> int:
    """An estimate of what encoding frames needs beside the weights, in tensors of one frame in the widest layer."""
    # The VAE takes a few frames at a time, so more frames than those need no more.
    return (20 + 6 * min(num_frames, 12)) * height_px * width_px * _widest_layer(base)


def decode_bytes(
    base: CogVideoXI2V, num_frames: int, height_px: int, width_px: int, tile_px: tuple[int, int] | None = None
) -> int:
    """An estimate of what decoding frames needs beside the weights: the layers of one tile, and the video twice.

    tile_px is the height and width of a tile, the family's if not given.
    """
    tile_height, tile_width = tile_px or base.family.tile_px
    tile = min(height_px, tile_height) * min(width_px, tile_width)
    video = 3 * num_frames * height_px * width_px * base.dtype.itemsize
    return 200 * tile * _widest_layer(base) + 2 * video


def _widest_layer(base: CogVideoXI2V) -> int:
    """Bytes of one pixel in the layers of full resolution."""
    return base.vae.config.block_out_channels[0] * base.dtype.itemsize
