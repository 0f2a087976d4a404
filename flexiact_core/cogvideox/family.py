"""What one family of CogVideoX image-to-video bases knows, each fact once.

A new family is a row in FAMILIES. Sizes that one base of a family has for itself (layers, width, learned positions)
stay in its own config.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..errors import FileError, SettingError


@dataclass(frozen=True)
class Family:
    """The facts that all bases of a family share."""

    name: str
    signature: str  # first part of base_signature(): tells families apart whose layers have the same sizes
    fps: int  # frames per second of its training videos, and so of what it makes
    # Videos have frame_multiple * k + frame_offset frames. The VAE halves time twice and decodes latent frames in
    # pairs; an even number of latent frames gives four frames each, one group more than went in.
    frame_multiple: int
    frame_offset: int
    frames_per_latent: int
    size_multiple: int  # pixels: a side in the VAE's steps, times the patch
    vae_scale: int  # pixels per latent side
    latent_channels: int
    tile_px: tuple[int, int]  # height and width of a decoding tile; its overlaps need sizes that divide evenly
    text_tokens: int
    # Patches (height, width) of the training size, to which rotary positions of all sizes are scaled. None: positions
    # are the patches' own numbers.
    grid: tuple[int, int] | None
    patch_size_t: int | None  # latent frames in a patch; None: patches lie in one frame
    ofs: float | None  # what the transformer is told as `ofs`; None: it takes none
    # What a run takes where nobody says otherwise.
    width_px: int
    height_px: int
    num_frames: int
    steps: int
    cfg: float
    # Training clips have frame_multiple * k + clip_offset frames: those that fill whole patches by themselves.
    clip_offset: int = 1
    invert_scale_latents: bool = False  # the released VAE's config: how the picture's latents are scaled
    pose_norms: bool = False  # whether every block has one, beside the stock layers

    @property
    def min_frames(self) -> int:
        """The shortest video that has motion in it."""
        return self.frame_offset + (self.frame_multiple if self.frame_offset == 1 else 0)

    @property
    def frame_rule(self) -> str:
        """How many frames there may be, such as '8k+1'."""
        return f"{self.frame_multiple}k+{self.frame_offset}"

    def check_num_frames(self, num_frames: int) -> int:
        """`num_frames`, if the VAE returns exactly as many frames as went in, such as 8k+1.

        Raises SettingError naming the nearest counts that work.
        """
        multiple, offset = self.frame_multiple, self.frame_offset
        if num_frames >= offset and (num_frames - offset) % multiple == 0:
            return num_frames
        below = max(offset, (num_frames - offset) // multiple * multiple + offset)
        above = below + multiple
        nearest, other = (below, above) if num_frames - below <= above - num_frames else (above, below)
        raise SettingError(
            f"num_frames {num_frames}: the video autoencoder returns exactly {self.frame_rule} frames. "
            f"Nearest: {nearest}; on the other side: {other}."
        )

    def check_size(self, width_px: int, height_px: int) -> None:
        """Passes if both sides are multiples of size_multiple. Raises SettingError naming the nearest that are."""
        step = self.size_multiple
        for name, size in (("width", width_px), ("height", height_px)):
            if size < step or size % step:
                nearest = max(step, round(size / step) * step)
                raise SettingError(f"{name} {size}: the model works in steps of {step} pixels. Nearest: {nearest}.")

    def count_latent_frames(self, num_frames: int) -> int:
        """How many latent frames the transformer takes for a video: rounded up to whole patches."""
        return self._own_latent_frames(num_frames) + self.count_padding(num_frames)

    def count_padding(self, num_frames: int) -> int:
        """How many of count_latent_frames() only fill the first patch: the first ones, dropped before decoding."""
        return -self._own_latent_frames(num_frames) % (self.patch_size_t or 1)

    def _own_latent_frames(self, num_frames: int) -> int:
        return (num_frames - 1) // self.frames_per_latent + 1


COGVIDEOX_1_0 = Family(
    name="CogVideoX 1.0 image-to-video",
    signature="cogvideox-i2v",
    fps=8,
    frame_multiple=8,
    frame_offset=1,
    frames_per_latent=4,
    size_multiple=16,
    vae_scale=8,
    latent_channels=16,
    tile_px=(240, 360),
    text_tokens=226,
    grid=(30, 45),
    patch_size_t=None,
    ofs=None,
    width_px=720,
    height_px=480,
    num_frames=49,
    steps=50,
    cfg=6.0,
)

COGVIDEOX_1_5 = Family(
    name="CogVideoX 1.5 image-to-video",
    signature="cogvideox1.5-i2v",
    fps=16,
    frame_multiple=8,
    frame_offset=1,
    frames_per_latent=4,
    size_multiple=16,
    vae_scale=8,
    latent_channels=16,
    tile_px=(240, 360),
    text_tokens=226,
    grid=None,
    patch_size_t=2,
    ofs=2.0,
    width_px=1360,
    height_px=768,
    num_frames=81,
    steps=50,
    cfg=6.0,
    clip_offset=5,
    invert_scale_latents=True,
)

# CogVideoX 1.5, all of it trained further with pose norms: what fits the layers of one fits the other's. Its videos
# have a pose for every frame, so no frames are put before the first one to fill a patch.
DYNAMICTRL = replace(
    COGVIDEOX_1_5,
    name="DynamiCtrl",
    frame_offset=5,
    width_px=768,
    height_px=1360,
    num_frames=37,
    steps=25,
    cfg=3.0,
    pose_norms=True,
)

FAMILIES = (COGVIDEOX_1_0, COGVIDEOX_1_5, DYNAMICTRL)


def family_of(config: Mapping[str, Any]) -> Family:
    """The family of the base whose transformer has this config.

    Raises FileError if it is of none that is known here.
    """
    for family in FAMILIES:
        if (config.get("patch_size_t"), bool(config.get("pose_norms"))) == (family.patch_size_t, family.pose_norms):
            return family
    known = ", ".join(family.name for family in FAMILIES)
    raise FileError(
        f"transformer: patches of {config.get('patch_size_t')} latent frames, as no base has that is known here. "
        f"Load one of {known}."
    )


def check_video_size(config: Mapping[str, Any], width_px: int, height_px: int, num_frames: int) -> None:
    """Passes if a transformer with this config can make a video of this size.

    With learned positions it knows one width and height, and no more frames than it was trained on.
    Raises SettingError otherwise, with the size that works.
    """
    family = family_of(config)
    family.check_size(width_px, height_px)
    family.check_num_frames(num_frames)
    if not config["use_learned_positional_embeddings"]:
        return
    native_width, native_height = (config[side] * family.vae_scale for side in ("sample_width", "sample_height"))
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
