"""The release's own data: demo folders, and clips encoded for training, one file a frame, numbered.

Names are a number with anything before it: frame_005240.pth, 0051.pth, frame_004432.jpg. A clip takes every third
number, as the authors film at 24 frames a second and train at 8.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..errors import FileError, SettingError
from ..model_folders import read_json
from ..picture_files import read_stored_picture
from ..weight_files import read_tensor
from .model import LATENT_CHANNELS, TRAINED_FRAMES
from .pictures import frames_to_clip, preview_frame

STEP = 3
LATENT_SUFFIXES, PICTURE_SUFFIXES = (".pth", ".pt"), (".jpg", ".jpeg", ".png")
# Where avatars lie in the release's folders, which call them gh or hg images.
AVATAR_FOLDERS = ("hg_images_feature", "gh_images_feature")
VIDEO_FOLDER, CAPTION_FOLDER, ZERO_FILE = "images_feature", "captions_y", "zero_y.pt"
_NUMBER = re.compile(r"(\d+)$")


@dataclass(frozen=True, eq=False)
class DemoClip:
    """An avatar clip of the release's: latents (1, 4, F, h, w), or frames (F, H, W, 3) in 0..1; and its captions.

    starts lists every number that a clip can start with.
    """

    latents: Tensor | None
    frames: Tensor | None
    captions: tuple[str, ...]
    start: int
    starts: tuple[int, ...]


def read_demo(folder: Path, start: int = 0, step: int = STEP, num_frames: int = TRAINED_FRAMES) -> DemoClip:
    """A clip of one of the release's demo folders, from number `start` on; 0 is the first from which a clip is whole.

    Raises FileError if the folder holds no numbered frames, no clip is whole, or a frame cannot be read, SettingError
    if no clip starts there.
    """
    folder = Path(folder)
    files = find_frames(folder)
    starts = whole_starts(files, step, num_frames)
    if not starts:
        raise FileError(
            f"{folder.name}: {len(files)} frames found, but never {num_frames} of them {step} numbers apart. Set step "
            "and num_frames to what is there."
        )
    if start and start not in starts:
        near = min(starts, key=lambda number: abs(number - start))
        raise SettingError(f"start {start}: no whole clip starts there. {len(starts)} starts; nearest: {near}.")
    start = start or starts[0]
    paths = [files[start + step * index] for index in range(num_frames)]
    captions = read_captions(folder, start)
    if paths[0].suffix in LATENT_SUFFIXES:
        return DemoClip(read_latents(paths), None, captions, start, starts)
    return DemoClip(None, _read_pictures(paths), captions, start, starts)


def preview(clip: DemoClip) -> Tensor:
    """Pictures (F, H, W, 3) in 0..1 of a clip: its frames, or a guess at what its latents show, a pixel each."""
    if clip.latents is None:
        return clip.frames
    return torch.stack([preview_frame(clip.latents, index) for index in range(clip.latents.shape[2])])


def find_frames(folder: Path) -> dict[int, Path]:
    """Files of numbered frames by number: latents of avatars where there are any, pictures otherwise.

    Looks into the folder itself, then into those that the release names. Raises FileError if there are none.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileError(f"{folder.name}: no such folder. Give the full path of one of the release's demo folders.")
    places = [folder, *(folder / name for name in AVATAR_FOLDERS)]
    for suffixes in (LATENT_SUFFIXES, PICTURE_SUFFIXES):
        for place in places:
            if found := numbered(place, suffixes):
                return found
    raise FileError(
        f"{folder.name}: no numbered frames in it ({', '.join(LATENT_SUFFIXES + PICTURE_SUFFIXES)}). Choose "
        "change_background, change_motion or move_camera of the release's _demo_data."
    )


def numbered(folder: Path, suffixes: Sequence[str]) -> dict[int, Path]:
    """Files of a folder with these endings by the number that their names end with, in its order."""
    found = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        match = _NUMBER.search(path.stem)
        if match and path.suffix.lower() in suffixes:
            found[int(match[1])] = path
    return dict(sorted(found.items()))


def whole_starts(numbers: Sequence[int], step: int, num_frames: int) -> tuple[int, ...]:
    """Numbers from which `num_frames` frames, `step` apart, are all there."""
    there = set(numbers)
    return tuple(n for n in sorted(there) if all(n + step * index in there for index in range(num_frames)))


def read_latents(paths: Sequence[Path]) -> Tensor:
    """Latents (1, 4, F, h, w), float32, of frames' files, each (1, 1, 4, h, w), in the UNet's scale.

    Raises FileError naming the first file of another shape.
    """
    frames = []
    for path in paths:
        latent = read_tensor(path).float()
        if latent.ndim < 3 or latent.numel() != LATENT_CHANNELS * latent.shape[-2] * latent.shape[-1]:
            raise FileError(
                f"{path.name}: one frame of {LATENT_CHANNELS} channels expected, {list(latent.shape)} found."
            )
        frames.append(latent.reshape(1, LATENT_CHANNELS, *latent.shape[-2:]))
    if len({frame.shape for frame in frames}) > 1:
        raise FileError(f"{paths[0].parent.name}: frames of several shapes. Keep one clip's files in a folder.")
    return frames_to_clip(torch.cat(frames))


def read_captions(folder: Path, start: int) -> tuple[str, ...]:
    """Captions of the JSON file beside or below a folder, that of number `start` first; empty if there is none."""
    files = sorted(Path(folder).glob("*.json")) + sorted(Path(folder).glob("*/*.json"))
    files.sort(key=lambda file: not (_NUMBER.search(file.stem) and int(_NUMBER.search(file.stem)[1]) == start))
    for file in files:
        content = read_json(file)
        listed = content.get("new_captions") if isinstance(content, dict) else content
        if isinstance(listed, list) and listed and all(isinstance(text, str) for text in listed):
            return tuple(listed)
    return ()


def _read_pictures(paths: Sequence[Path]) -> Tensor:
    pictures = [read_stored_picture(path) for path in paths]
    if len({picture.shape for picture in pictures}) > 1:
        raise FileError(f"{paths[0].parent.name}: pictures of several sizes. Keep one clip's files in a folder.")
    return torch.stack(pictures)
