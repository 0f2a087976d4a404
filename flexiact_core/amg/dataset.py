"""What AMG learns from: the release's encoded clips, or a folder of video pairs that is encoded once.

A folder of pairs holds video/NAME.mp4, avatar/NAME.mp4 of the same length, and the caption in video/NAME.txt.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..digests import content_digest
from ..errors import FileError, why
from ..video import fit_frames
from ..video_files import read_video
from ..weight_files import read_tensor, read_tensors, write_tensors
from .fit import AvatarClip
from .model import TRAINED_FPS, TRAINED_FRAMES
from .pictures import draw_latents, encode_frames, fit_avatar
from .released import (
    AVATAR_FOLDERS,
    CAPTION_FOLDER,
    LATENT_SUFFIXES,
    STEP,
    VIDEO_FOLDER,
    ZERO_FILE,
    numbered,
    read_latents,
    whole_starts,
)

VIDEO_SUFFIXES = (".mp4", ".webm", ".mov", ".mkv", ".avi")


@dataclass(frozen=True)
class Pair:
    """A video, the video of its avatars, and what it shows."""

    video: Path
    avatar: Path
    caption: str


class ReleasedClips:
    """Clips in the release's layout: latents of frames, and the caption's embedding of the middle one."""

    def __init__(self, folder: Path, num_frames: int = TRAINED_FRAMES, step: int = STEP, skip: int = 0):
        """`skip` leaves out the first clips; the authors keep 5500 for looking at results.

        Raises FileError if a folder is missing or no clip is whole.
        """
        folder = Path(folder)
        avatars = next((folder / name for name in AVATAR_FOLDERS if (folder / name).is_dir()), None)
        if avatars is None or not is_released(folder):
            raise FileError(
                f"{folder.name}: not the release's layout. It has {VIDEO_FOLDER}, {CAPTION_FOLDER}, and "
                f"{' or '.join(AVATAR_FOLDERS)}."
            )
        self.num_frames, self.step = num_frames, step
        self.avatars = numbered(avatars, LATENT_SUFFIXES)
        self.videos = numbered(folder / VIDEO_FOLDER, LATENT_SUFFIXES)
        self.captions = numbered(folder / CAPTION_FOLDER, LATENT_SUFFIXES)
        self.middle = num_frames // 2 * step
        both = self.avatars.keys() & self.videos.keys()
        starts = [n for n in whole_starts(both, step, num_frames) if n + self.middle in self.captions]
        self.starts = starts[skip:]
        if not self.starts:
            raise FileError(
                f"{folder.name}: of {len(both)} frames with video and avatar none begins a clip of {num_frames}, "
                f"{step} numbers apart, with a caption of its middle frame, after the first {skip} such clips."
            )
        zero = folder / ZERO_FILE
        self.zero_text = _text(read_tensor(zero)) if zero.is_file() else None

    @property
    def identity(self) -> list:
        """What tells these clips from others, in values that JSON can hold."""
        # Of some clips, evenly spread, what they hold.
        some = sorted({self.starts[len(self.starts) * index // 8] for index in range(8)})
        files = [table[number] for number in some for table in (self.videos, self.avatars)]
        files += [self.captions[number + self.middle] for number in some]
        contents = hashlib.sha256("".join(content_digest(file) for file in files).encode()).hexdigest()
        return [len(self.starts), self.starts[0], self.starts[-1], self.num_frames, self.step, contents]

    def draw(self, generator: torch.Generator) -> AvatarClip:
        """A random clip."""
        start = self.starts[int(torch.randint(len(self.starts), (), generator=generator))]
        numbers = [start + self.step * index for index in range(self.num_frames)]
        return AvatarClip(
            video=read_latents([self.videos[number] for number in numbers]),
            avatar=read_latents([self.avatars[number] for number in numbers]),
            text=_text(read_tensor(self.captions[start + self.middle])),
        )


class EncodedPairs:
    """Pairs encoded once, one file each; `draw` takes a window of one of them at random."""

    def __init__(self, files: Sequence[Path], scaling_factor: float, num_frames: int = TRAINED_FRAMES):
        self.files, self.scaling_factor, self.num_frames = list(files), scaling_factor, num_frames

    @property
    def identity(self) -> list:
        """What tells these clips from others, in values that JSON can hold."""
        return [sorted(file.name for file in self.files), self.num_frames]

    def draw(self, generator: torch.Generator) -> AvatarClip:
        """A random window of a random pair."""
        tensors = read_tensors(self.files[int(torch.randint(len(self.files), (), generator=generator))])
        last = max(0, len(tensors["video"]) - self.num_frames)
        first = int(torch.randint(last + 1, (), generator=generator))
        video, avatar = (
            draw_latents(tensors[name][first : first + self.num_frames], self.scaling_factor, generator)
            for name in ("video", "avatar")
        )
        return AvatarClip(video, avatar, tensors["text"].float())


def is_released(folder: Path) -> bool:
    """Whether a folder has the layout of the release's training data."""
    folder = Path(folder)
    return all((folder / name).is_dir() for name in (VIDEO_FOLDER, CAPTION_FOLDER))


def check_clips(folder: Path) -> None:
    """Passes if a folder has the layout of either kind. Raises FileError as find_pairs() does otherwise."""
    if not is_released(folder):
        find_pairs(folder)


def find_pairs(folder: Path) -> list[Pair]:
    """The pairs of a folder, by name. Raises FileError naming what is missing."""
    folder = Path(folder)
    videos = _videos(folder / "video")
    if not videos:
        raise FileError(
            f"{folder.name}: no video/NAME.mp4 in it. Put pairs there: video/NAME.mp4, avatar/NAME.mp4 and the caption"
            f" in video/NAME.txt; or give the release's layout ({VIDEO_FOLDER}, {AVATAR_FOLDERS[0]}, {CAPTION_FOLDER})."
        )
    avatars, pairs = _videos(folder / "avatar"), []
    for name, video in videos.items():
        caption = video.with_suffix(".txt")
        missing = [str(Path("avatar") / f"{name}.mp4")] if name not in avatars else []
        missing += [] if caption.is_file() else [f"video/{caption.name}"]
        if missing:
            raise FileError(f"{folder.name}: {' and '.join(missing)} missing for video/{video.name}. Add it.")
        try:
            words = caption.read_text(encoding="utf-8-sig").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise FileError(f"{caption.name}: cannot be read ({why(error)}). Save it as text in UTF-8.") from error
        pairs.append(Pair(video, avatars[name], words))
    return pairs


def pair_file(pair: Pair, folder: Path, width_px: int, height_px: int, made_with: str = "") -> Path:
    """Where the encoding of a pair lies; another one for another content, caption, size, or way to make it."""
    contents = f"{content_digest(pair.video)}|{content_digest(pair.avatar)}"
    identity = f"{contents}|{pair.caption}|{width_px}x{height_px}|{made_with}"
    return Path(folder) / f"{hashlib.sha256(identity.encode()).hexdigest()[:16]}.safetensors"


def encode_pairs(
    pairs: Sequence[Pair],
    folder: Path,
    encode: Callable[[Tensor], Tensor],
    encode_caption: Callable[[str], Tensor],
    scaling_factor: float,
    *,
    width_px: int,
    height_px: int,
    num_frames: int = TRAINED_FRAMES,
    made_with: str = "",
    on_pair: Callable[[int], None] | None = None,
    read: Callable[..., Tensor] = read_video,
) -> EncodedPairs:
    """The pairs at 8 frames per second, encoded into files in `folder`; those that are there are left as they are.

    encode gives a VAE's means and log variances (F, 8, h, w) of frames (F, H, W, 3), as encode_frames();
    encode_caption gives (1, S, D); made_with names what both work with, such as module_digest() of VAE and text
    encoder. on_pair is called after each pair with its index. read takes read_video()'s place, for who stops it.
    Raises FileError naming a pair whose videos cannot be read, or differ by more than two frames.
    """
    files = []
    for index, pair in enumerate(pairs):
        file = pair_file(pair, folder, width_px, height_px, made_with)
        if not file.is_file():
            size = (width_px, height_px)
            video, avatar = (read(path, TRAINED_FPS, size=size) / 255 for path in (pair.video, pair.avatar))
            length = min(len(video), len(avatar))
            if abs(len(video) - len(avatar)) > 2 or length < 2:
                raise FileError(
                    f"{pair.video.name}: {len(video)} frames of video and {len(avatar)} of avatar at {TRAINED_FPS} per "
                    "second; the same number, at least 2, is needed. Cut them to the same seconds."
                )
            tensors = {
                "video": encode(fit_frames(video[:length], width_px, height_px)),
                "avatar": encode(fit_avatar(avatar[:length], width_px, height_px)),
                "text": encode_caption(pair.caption).float().cpu(),
            }
            write_tensors(tensors, file, {"caption": pair.caption})
        files.append(file)
        if on_pair is not None:
            on_pair(index)
    return EncodedPairs(files, scaling_factor, num_frames)


def vae_encoder(vae, device: torch.device) -> Callable[[Tensor], Tensor]:
    """encode_frames() of a VAE on `device`."""
    return lambda frames: encode_frames(vae, frames, device)


def _videos(folder: Path) -> dict[str, Path]:
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return {file.stem: file for file in files if file.suffix.lower() in VIDEO_SUFFIXES}


def _text(tensor: Tensor) -> Tensor:
    return tensor.float().reshape(1, *tensor.shape[-2:])
