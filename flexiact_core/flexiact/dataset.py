"""Lists of clips on disk: CSV files as the authors write them, their benchmark folder, and clips encoded once.

A row of a clip list is: path, start frame, end frame, fps, any further columns, caption. Paths are looked for beside
the list and in the folders above it, with or without their first part.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..checkpoint import read_tensors, write_tensors
from ..cogvideox.model import Posterior, encode_pixels
from ..errors import CheckpointError
from ..video import fit_frames, read_video, to_model_pixels
from .clips import TRAINING_FPS, select_window
from .training import TrainingClip


@dataclass(frozen=True)
class ListedClip:
    """A stretch of a video file: start and duration in seconds, duration 0 is to the end; and what it shows."""

    path: Path
    start: float
    duration: float
    caption: str


@dataclass(frozen=True)
class ReleasedAction:
    """One action of the authors' benchmark folder: its reference clips, and target pictures with their captions."""

    kind: str
    name: str
    clips: tuple[ListedClip, ...]
    targets: tuple[tuple[Path, str], ...]


def read_clip_list(file: Path) -> list[ListedClip]:
    """The clips of a CSV list, in its order.

    Raises CheckpointError naming the line if a number cannot be read or a video is not there.
    """
    file = Path(file)
    clips = []
    for number, row in enumerate(_read_rows(file), start=1):
        if number == 1 and len(row) > 1 and not _is_number(row[1]):
            continue
        if len(row) < 5 or not all(map(_is_number, row[1:4])) or float(row[3]) <= 0:
            raise CheckpointError(
                f"{file.name}, line {number}: path, start frame, end frame, fps, ..., caption expected; "
                f"{row[:5]} found."
            )
        start, end, fps = map(float, row[1:4])
        clips.append(ListedClip(_find(row[0], file, number), start / fps, max(0.0, end - start) / fps, row[-1].strip()))
    if not clips:
        raise CheckpointError(f"{file.name}: no clip in the list. Each line names one video.")
    return clips


def read_released_action(folder: Path) -> ReleasedAction:
    """The action described by captions/<kind>/<action> of the authors' benchmark folder.

    Raises CheckpointError as read_clip_list does. val_image.csv, the target pictures, may be missing.
    """
    folder = Path(folder)
    targets = folder / "val_image.csv"
    listed = _read_rows(targets) if targets.is_file() else []
    return ReleasedAction(
        kind=folder.parent.name,
        name=folder.name,
        clips=tuple(read_clip_list(folder / "crop.csv")),
        targets=tuple(
            (_find(row[0], targets, number), row[-1].strip())
            for number, row in enumerate(listed, start=1)
            if len(row) > 1 and not (number == 1 and row[0].strip().lower() == "path")
        ),
    )


def find_released_actions(root: Path) -> dict[str, Path]:
    """Folders of the actions under a benchmark folder, by 'kind/action'."""
    return {
        f"{file.parent.parent.name}/{file.parent.name}": file.parent
        for file in sorted(Path(root).rglob("crop.csv"))
        if file.parent.parent.parent.name == "captions"
    }


class EncodedClips:
    """Clips encoded once, one file each; `draw` reads one of them at random."""

    def __init__(self, files: Sequence[Path], scaling_factor: float):
        self.files, self.scaling_factor = list(files), scaling_factor

    def draw(self, generator: torch.Generator) -> TrainingClip:
        """A random clip, with one of its frames, chosen at random, as condition image."""
        tensors = read_tensors(self.files[int(torch.randint(len(self.files), (), generator=generator))])
        frame = int(torch.randint(len(tensors["image.mean"]), (), generator=generator))
        return TrainingClip(
            video=Posterior(tensors["video.mean"], tensors["video.std"]),
            image=Posterior(tensors["image.mean"][frame : frame + 1], tensors["image.std"][frame : frame + 1]),
            prompt_embeds=tensors["prompt_embeds"],
            scaling_factor=self.scaling_factor,
        )


def encoded_file(clip: ListedClip, folder: Path) -> Path:
    """Where the encoding of a clip lies; another one for another file, stretch or caption."""
    stat = clip.path.stat()
    identity = f"{clip.path.name}|{stat.st_size}|{clip.start}|{clip.duration}|{clip.caption}"
    return Path(folder) / f"{hashlib.sha256(identity.encode()).hexdigest()[:16]}.safetensors"


def encode_listed_clips(
    vae,
    clips: Sequence[ListedClip],
    folder: Path,
    encode_caption: Callable[[str], Tensor],
    *,
    width_px: int,
    height_px: int,
    max_frames: int,
    device: torch.device,
    images_per_clip: int = 8,
    seed: int = 0,
    on_clip: Callable[[int], None] | None = None,
) -> EncodedClips:
    """The clips, encoded into files in `folder`; those that are there already are left as they are.

    Of each clip one stretch of 8k+1 frames, at most max_frames, at a random place, and some of its frames, at random,
    as condition images. encode_caption gives embeddings (1, S, D). on_clip is called after each clip with its index.
    Raises CheckpointError and ShapeError if a video cannot be read or is too short.
    """
    files = []
    for index, clip in enumerate(clips):
        file = encoded_file(clip, folder)
        if not file.is_file():
            generator = torch.Generator().manual_seed(seed + index)
            frames = read_video(clip.path, TRAINING_FPS, clip.start, clip.duration)
            window = fit_frames(select_window(frames, max_frames, generator) / 255, width_px, height_px)
            picked = torch.randperm(len(window), generator=generator)[:images_per_clip]
            video = encode_pixels(vae, to_model_pixels(window), device)
            images = [encode_pixels(vae, to_model_pixels(window[at : at + 1]), device) for at in picked]
            tensors = {
                "video.mean": video.mean,
                "video.std": video.std,
                "image.mean": torch.cat([image.mean for image in images]),
                "image.std": torch.cat([image.std for image in images]),
                "prompt_embeds": encode_caption(clip.caption).float().cpu(),
            }
            write_tensors(tensors, file, {"caption": clip.caption})
        files.append(file)
        if on_clip is not None:
            on_clip(index)
    return EncodedClips(files, vae.config.scaling_factor)


def _read_rows(file: Path) -> list[list[str]]:
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            return [row for row in csv.reader(lines) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CheckpointError(f"{file.name}: this list cannot be read ({error}). Save it as CSV in UTF-8.") from error


def _find(listed: str, file: Path, line: int) -> Path:
    path = Path(listed.strip())
    shorter = Path(*path.parts[1:])
    for folder in file.absolute().parents:
        for candidate in (folder / path, folder / shorter):
            if candidate.is_file():
                return candidate
    raise CheckpointError(
        f"{file.name}, line {line}: {listed} is not there, beside the list or in a folder above it. Correct the path."
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
