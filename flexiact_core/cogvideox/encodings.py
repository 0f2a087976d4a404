"""Clips encoded once, for training: in memory, or as files.

Shape letters: N clips, T frames, L latent frames, C channels, H W height and width (h w in latents), S text tokens,
D text width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..clip_lists import ListedClip
from ..clips import ClipFormat, select_window
from ..digests import content_digest, module_digest
from ..modules import OnPart
from ..video import to_model_pixels
from ..video_files import read_video
from ..weight_files import read_tensors, write_tensors
from .model import CogVideoXI2V, Posterior, condition_scale, encode_pixels, encode_prompt

if TYPE_CHECKING:
    from diffusers import AutoencoderKLCogVideoX


@dataclass(frozen=True, eq=False)
class Clips:
    """Encoded training clips: posteriors of N videos and of their condition images, and the embeddings used.

    video is (N, L, C, h, w), image (N, 1, C, h, w), unscaled; prompt_embeds is (1, S, D), or (N, S, D) where each
    clip has a caption of its own, empty_embeds (1, S, D).
    """

    video: Posterior
    image: Posterior
    prompt_embeds: Tensor
    empty_embeds: Tensor
    scaling_factor: float
    # Of condition images; None: the same.
    image_scale: float | None = None


def encode_captions(base: CogVideoXI2V, captions: Iterable[str], device: torch.device) -> dict[str, Tensor]:
    """Embeddings (1, S, D) of captions, on the CPU, by caption; the text encoder is on `device` meanwhile."""
    length = base.transformer.config.max_text_seq_length
    base.text_encoder.to(device)
    embeds = {
        caption: encode_prompt(base.text_encoder, base.tokenizer, caption, length, device).cpu()
        for caption in dict.fromkeys(captions)
    }
    base.text_encoder.to("cpu")
    return embeds


def encode_clips(
    vae: AutoencoderKLCogVideoX,
    videos: list[Tensor],
    prompt_embeds: Tensor,
    empty_embeds: Tensor,
    device: torch.device,
    on_clip: Callable[[int], None] | None = None,
    on_part: OnPart | None = None,
) -> Clips:
    """The videos (T, H, W, 3 in 0..1) and their first frames, encoded once on `device`, kept on the CPU.

    on_clip is called after each video with its index, on_part before each layer as in encode_pixels(); they may raise
    to stop.
    """
    posteriors, images = [], []
    for index, video in enumerate(videos):
        posteriors.append(encode_pixels(vae, to_model_pixels(video), device, on_part))
        images.append(encode_pixels(vae, to_model_pixels(video[:1]), device, on_part))
        if on_clip is not None:
            on_clip(index)
    return Clips(
        _stack(posteriors), _stack(images), prompt_embeds.cpu(), empty_embeds.cpu(), vae.config.scaling_factor,
        condition_scale(vae),
    )  # fmt: skip


def _stack(posteriors: list[Posterior]) -> Posterior:
    return Posterior(torch.cat([p.mean for p in posteriors]), torch.cat([p.std for p in posteriors]))


class EncodedClips:
    """Clips encoded once, one file each; `draw` reads one of them at random."""

    def __init__(self, files: Sequence[Path], scaling_factor: float, image_scale: float | None = None):
        self.files, self.scaling_factor, self.image_scale = list(files), scaling_factor, image_scale

    def draw(self, generator: torch.Generator) -> TrainingClip:
        """A random clip, with one of its frames, chosen at random, as condition image."""
        tensors = read_tensors(self.files[int(torch.randint(len(self.files), (), generator=generator))])
        frame = int(torch.randint(len(tensors["image.mean"]), (), generator=generator))
        return TrainingClip(
            video=Posterior(tensors["video.mean"], tensors["video.std"]),
            image=Posterior(tensors["image.mean"][frame : frame + 1], tensors["image.std"][frame : frame + 1]),
            prompt_embeds=tensors["prompt_embeds"],
            scaling_factor=self.scaling_factor,
            image_scale=self.image_scale,
        )


def encoded_file(clip: ListedClip, folder: Path, made_with: str = "") -> Path:
    """Where the encoding of a clip lies; another one for another content, stretch, caption, or way to make it."""
    identity = f"{content_digest(clip.path)}|{clip.start}|{clip.duration}|{clip.caption}|{made_with}"
    return Path(folder) / f"{hashlib.sha256(identity.encode()).hexdigest()[:16]}.safetensors"


def way_of(vae, form: ClipFormat, images_per_clip: int = 8, seed: int = 0, made_with: str = "") -> str:
    """The made_with of encoded_file() for what encode_listed_clips() makes with these arguments."""
    return f"{module_digest(vae)}|{form}|{images_per_clip}|{seed}|{made_with}"


def encode_listed_clips(
    vae: AutoencoderKLCogVideoX,
    clips: Sequence[ListedClip],
    folder: Path,
    encode_caption: Callable[[str], Tensor],
    *,
    form: ClipFormat,
    device: torch.device,
    images_per_clip: int = 8,
    seed: int = 0,
    made_with: str = "",
    on_clip: Callable[[int], None] | None = None,
    on_part: OnPart | None = None,
    read: Callable[..., Tensor] = read_video,
) -> EncodedClips:
    """The clips, encoded into files in `folder`; those that are there already are left as they are.

    Of each clip one stretch of the form's length, at a random place, and some of its frames, at random, as condition
    images. encode_caption gives embeddings (1, S, D); made_with names what it works with, such as module_digest() of a
    text encoder. on_clip is called after each clip with its index, on_part before each layer as in encode_pixels().
    read takes read_video()'s place, for who stops it or hears its notes.
    An encoding is known by the clip's content, stretch and caption, by the VAE, the form, the seed and made_with.
    Raises FileError and ShapeError if a video cannot be read or is too short.
    """
    files = []
    way = way_of(vae, form, images_per_clip, seed, made_with)
    for index, clip in enumerate(clips):
        file = encoded_file(clip, folder, way)
        if not file.is_file():
            # By what it is, and not by its place in the list: the same clip in another list is the same encoding.
            generator = torch.Generator().manual_seed(int(file.stem, 16) >> 1)
            frames = read(clip.path, form.fps, clip.start, clip.duration, size=form.size_px)
            window = select_window(frames, form, generator) / 255
            picked = torch.randperm(len(window), generator=generator)[:images_per_clip]
            video = encode_pixels(vae, to_model_pixels(window), device, on_part)
            images = [encode_pixels(vae, to_model_pixels(window[at : at + 1]), device, on_part) for at in picked]
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
    return EncodedClips(files, vae.config.scaling_factor, condition_scale(vae))


@dataclass(frozen=True, eq=False)
class TrainingClip:
    """One encoded clip for RefAdapter: its video (1, L, C, h, w), one of its frames (1, 1, C, h, w), its caption.

    Posteriors are unscaled; prompt_embeds is (1, S, D).
    """

    video: Posterior
    image: Posterior
    prompt_embeds: Tensor
    scaling_factor: float
    image_scale: float | None = None
