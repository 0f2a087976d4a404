"""What one base of the CogVideoX family knows: frames, sizes, grids."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import SettingError

# Pixels per latent side.
VAE_SCALE = 8

# Height and width of a decoding tile: diffusers' own for 480 x 720. Its overlaps need sizes that divide evenly.
TILE_PX = (240, 360)

# Patches (height, width) of the training size 480 x 720; rotary positions of other sizes are scaled to it.
BASE_GRID = (30, 45)


# 8x in the VAE, then patches of 2.
SIZE_MULTIPLE = 16
FRAME_MULTIPLE = 8


def check_video_size(config: Mapping[str, Any], width_px: int, height_px: int, num_frames: int) -> None:
    """Nothing, if a transformer with this config can make a video of this size.

    With learned positions it knows one width and height, and no more frames than it was trained on.
    Raises SettingError otherwise, with the size that works.
    """
    check_size(width_px, height_px)
    check_num_frames(num_frames)
    if not config["use_learned_positional_embeddings"]:
        return
    native_width, native_height = config["sample_width"] * VAE_SCALE, config["sample_height"] * VAE_SCALE
    if (width_px, height_px) != (native_width, native_height):
        raise SettingError(
            f"{width_px}x{height_px}: this base has learned positions for {native_width}x{native_height} only. "
            f"Set width {native_width} and height {native_height}; the picture is fitted to it."
        )
    if num_frames > config["sample_frames"]:
        raise SettingError(
            f"num_frames {num_frames}: this base has learned positions for {config['sample_frames']} frames. "
            f"Set num_frames to {config['sample_frames']} or less."
        )


def count_latent_frames(vae, num_frames: int) -> int:
    """How many latent frames a video of 4k+1 frames has."""
    return (num_frames - 1) // vae.config.temporal_compression_ratio + 1


def check_num_frames(num_frames: int) -> int:
    """`num_frames`, if the VAE returns exactly as many frames as went in: 8k+1.

    The VAE halves time twice and decodes latent frames in pairs; an even number of latent frames gives four
    frames each, one group more than went in.
    Raises SettingError naming the nearest counts that work.
    """
    if num_frames >= 1 and (num_frames - 1) % FRAME_MULTIPLE == 0:
        return num_frames
    below = max(1, (num_frames - 1) // FRAME_MULTIPLE * FRAME_MULTIPLE + 1)
    above = below + FRAME_MULTIPLE
    nearest, other = (below, above) if num_frames - below <= above - num_frames else (above, below)
    raise SettingError(
        f"num_frames {num_frames}: the video autoencoder returns exactly 8k+1 frames. "
        f"Nearest: {nearest}; on the other side: {other}."
    )


def check_size(width_px: int, height_px: int) -> None:
    """Nothing, if both sides are multiples of 16 pixels. Raises SettingError naming the nearest that are."""
    for name, size in (("width", width_px), ("height", height_px)):
        if size < SIZE_MULTIPLE or size % SIZE_MULTIPLE:
            nearest = max(SIZE_MULTIPLE, round(size / SIZE_MULTIPLE) * SIZE_MULTIPLE)
            raise SettingError(
                f"{name} {size}: the model works in steps of {SIZE_MULTIPLE} pixels. Nearest: {nearest}."
            )
