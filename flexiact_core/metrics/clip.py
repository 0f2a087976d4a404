"""CLIP's view of a video: how near it is to words, and how alike its frames are.

Shape letters: T frames, H and W height and width in pixels, D features.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from ..errors import FileError, SettingError, ShapeError, why
from ..file_lists import walk_files
from ..model_folders import read_config, weight_files_of

# Frames that are looked at together; more are no faster on any card, and take more memory.
FRAMES_AT_ONCE = 16


class SeesFrames(Protocol):
    """What turns frames and words into features whose cosine says how near they are."""

    def see(self, frames: Tensor) -> Tensor:
        """Features (T, D) of frames (T, H, W, 3) in 0..1."""

    def read(self, words: str) -> Tensor | None:
        """Features (D,) of words; None where it can read none."""


@dataclass(frozen=True, eq=False)
class Clip:
    """A CLIP of transformers, with what prepares words and pictures for it."""

    model: Any
    tokenizer: Any
    pictures: Any

    @torch.no_grad()
    def see(self, frames: Tensor) -> Tensor:
        """Features (T, D) of frames (T, H, W, 3) in 0..1, on the CPU; computed where the model is."""
        features = []
        # Of 8 bits, as saved videos are: scaled down, they differ from finer ones by more than rounding.
        for part in (frames.float() * 255).round().byte().cpu().split(FRAMES_AT_ONCE):
            pixels = self.pictures(list(part.permute(0, 3, 1, 2)), return_tensors="pt").pixel_values
            features.append(_pooled(self.model.get_image_features(pixel_values=pixels.to(self.model.device))))
        return torch.cat(features)

    @torch.no_grad()
    def read(self, words: str) -> Tensor:
        """Features (D,) of words, of which CLIP reads the first 75 or so tokens."""
        length = self.model.config.text_config.max_position_embeddings
        tokens = self.tokenizer([words], truncation=True, max_length=length, return_tensors="pt")
        tokens = {name: tokens[name].to(self.model.device) for name in ("input_ids", "attention_mask")}
        return _pooled(self.model.get_text_features(**tokens))[0]


def is_clip_folder(folder: Path) -> bool:
    """Whether a folder holds a whole CLIP in transformers' layout: config, words and pictures. Never raises."""
    folder = Path(folder)
    try:
        words = (folder / "tokenizer.json").is_file() or (folder / "vocab.json").is_file()
        return words and read_config(folder / "config.json").get("model_type") == "clip"
    except (FileError, OSError, ValueError):
        return False


def find_clip_folders(root: Path) -> dict[str, Path]:
    """Folders under `root` that is_clip_folder() takes, by their names relative to it. Never raises."""
    found = {}
    for folder, _, files in walk_files(root):
        if folder != Path(root) and any(file.name == "config.json" for file in files) and is_clip_folder(folder):
            found[folder.relative_to(root).as_posix()] = folder
    return found


def load_clip(folder: Path, device: torch.device) -> Clip:
    """The Clip of a folder in transformers' layout, on `device`, in float32.

    Raises FileError if files are missing or damaged, or the model is another.
    """
    from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

    folder = Path(folder)
    if not is_clip_folder(folder):
        raise FileError(
            f"{folder.name}: no CLIP in transformers' layout (config.json with model_type clip, its weights, and a "
            "tokenizer). Fetch a whole one: hf download openai/clip-vit-large-patch14 --local-dir FOLDER"
        )
    weight_files_of(folder, pickles=True)
    try:
        # From pickles, transformers takes weights only.
        model = CLIPModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        pictures = _picture_preparation(folder, CLIPImageProcessor, model.config.vision_config.image_size)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise FileError(f"{folder.name}: this CLIP cannot be read ({why(error)}). Download it again.") from error
    return Clip(model.eval().requires_grad_(False).to(device), tokenizer, pictures)


def text_similarity(frames: Tensor, words: Tensor) -> float:
    """The mean cosine of the frames' features (T, D) with those of the words (D,), -1..1.

    Source: CLIPScore (Hessel et al., 2021) without its factor of 2.5, of each frame.
    """
    return float((_unit(frames) @ _unit(words)).mean())


def temporal_consistency(frames: Tensor) -> float:
    """The mean cosine of the features (T, D) of neighbouring frames, -1..1. Raises ShapeError for a single frame."""
    unit = _several(frames)
    return float((unit[1:] * unit[:-1]).sum(-1).mean())


def appearance_consistency(frames: Tensor) -> float:
    """The mean cosine of the first frame's features with those of every other (T, D), -1..1.

    Raises ShapeError for a single frame.
    """
    unit = _several(frames)
    return float((unit[1:] @ unit[0]).mean())


def check_features(features: Tensor | None, num_frames: int) -> Tensor:
    """Features (T, D) in float32 on the CPU, as another package's encoder gave them.

    Raises SettingError if they are no such features: some encoders of pictures have none that can be compared.
    """
    if features is None or features.ndim != 2 or len(features) != num_frames:
        raise SettingError("clip_vision: this encoder gives no features that can be compared. Choose one of CLIP.")
    return features.detach().float().cpu()


def _picture_preparation(folder: Path, kind, side_px: int):
    """How pictures are scaled, cut and normalised; CLIP's own way, at the model's size, where no file says it."""
    if (folder / "preprocessor_config.json").is_file():
        return kind.from_pretrained(folder, local_files_only=True)
    return kind(size={"shortest_edge": side_px}, crop_size={"height": side_px, "width": side_px})


def _pooled(found) -> Tensor:
    # Newer versions of transformers give all outputs, older ones the features alone.
    return (found if isinstance(found, Tensor) else found.pooler_output).float().cpu()


def _unit(features: Tensor) -> Tensor:
    return torch.nn.functional.normalize(features.float(), dim=-1)


def _several(frames: Tensor) -> Tensor:
    if len(frames) < 2:
        raise ShapeError("consistency: at least 2 frames are needed; one has no neighbour.")
    return _unit(frames)
