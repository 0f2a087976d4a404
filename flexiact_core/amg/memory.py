"""How many bytes a piece of work takes beside the weights: estimates, made before it starts.

Shape letters: F frames, h w latent height and width.
"""

from __future__ import annotations

from .pictures import CHUNK

# Tensors as large as the first level's that a forward holds at its fullest, counted on torch's meta device at released
# size (benchmarks/amg.py): the last level's widest layers, beside what the way down left for the way up.
_TENSORS = 84
# Bytes of one pixel in SD's VAE in units of its first layer's width, as ComfyUI counts them.
_ENCODE, _DECODE = 1767 / 128, 2178 / 128


def unet_bytes(unet, num_frames: int, latent_height: int, latent_width: int, halves: int, itemsize: int) -> int:
    """What one forward of `halves` clips needs."""
    values = num_frames * latent_height * latent_width * unet.config.block_out_channels[0]
    return halves * values * _TENSORS * itemsize


def training_bytes(
    unet, num_frames: int, latent_height: int, latent_width: int, batch_size: int, num_learned: int, itemsize: int
) -> tuple[int, int]:
    """What a training step needs: without and with gradient checkpointing.

    Without it every block's activations are kept, with it one level's and every level's input.
    """
    forward = unet_bytes(unet, num_frames, latent_height, latent_width, batch_size, itemsize)
    layers = unet.config.layers_per_block
    # A level keeps what two forwards hold for each of its layers; each further one halves both sides.
    first = 2 * layers * forward
    whole = sum((layers + 1) / layers * first * 2 / 4**level for level in range(len(unet.config.block_out_channels)))
    # In float32, with gradient and two moments.
    learned = 4 * 4 * num_learned
    # A tenth more for what the deeper levels keep.
    return int(whole) + learned, (first + forward) * 11 // 10 + learned


def encode_bytes(vae, num_frames: int, height_px: int, width_px: int) -> int:
    """What encoding frames needs: a chunk of them in the VAE's first layers."""
    return int(_ENCODE * _first_layer(vae, num_frames, height_px, width_px))


def decode_bytes(vae, num_frames: int, height_px: int, width_px: int) -> int:
    """What decoding frames needs: a chunk of them in the VAE's last layers."""
    return int(_DECODE * _first_layer(vae, num_frames, height_px, width_px))


def _first_layer(vae, num_frames: int, height_px: int, width_px: int) -> int:
    return min(num_frames, CHUNK) * height_px * width_px * vae.config.block_out_channels[0] * vae.dtype.itemsize
