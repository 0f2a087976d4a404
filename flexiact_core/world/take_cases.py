"""The small AMG used as a user would: an avatar's film and a caption become a video. What is measured and shown.

Shape letters: N cases, T frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..act_vae.figures import ACTIONS
from ..amg.pictures import decode_latents, draw_latents, encode_frames
from ..amg.sampling import sample_avatar_video
from ..amg.text import encode_prompt
from . import shipped
from .actors import FIRST_HELD_OUT, HELD_OUT_CLOTHES, other_action
from .takes import CAMERAS, SCENES, Take, by_camera, film, sample_take

if TYPE_CHECKING:
    from ..amg.model import AMG

CPU = torch.device("cpu")
STEPS, CFG = 20, 3.0
# Another camera, which moves along another way.
OTHER_CAMERA = {"right": "left", "left": "in", "in": "right", "out": "left", "around": "out"}


@dataclass(frozen=True, eq=False)
class TakeCase:
    """A person who was not in any training, what they do, before which camera, and the run's seed."""

    take: Take
    action: str
    camera: str
    seed: int

    def by_other_camera(self) -> Take:
        """The same person and motion before another camera."""
        return by_camera(self.take, OTHER_CAMERA[self.camera])

    def other_motion(self) -> Take:
        """The same person doing another action before the same camera."""
        return replace(self.take, shot=film(other_action(self.action), self.camera))

    def other_scene(self) -> str:
        """The name of another scene."""
        names = list(SCENES)
        return names[(names.index(self.take.scene) + 2) % len(names)]


def make_take_cases(count: int) -> list[TakeCase]:
    """So many cases: actions, cameras and scenes in turn, each person another one in clothes of no training."""
    return [take_case(number) for number in range(count)]


def take_case(number: int) -> TakeCase:
    """One of endlessly many cases, numbered from 0."""
    return example_take(number, list(ACTIONS)[number % len(ACTIONS)], list(CAMERAS)[number % len(CAMERAS)])


def example_take(person: int, action: str, camera: str) -> TakeCase:
    """One of endlessly many people who were in no training, numbered from 0, doing an action before a camera.

    Raises KeyError for other names than those of figures.ACTIONS and CAMERAS.
    """
    scene = list(SCENES)[(person // len(CAMERAS) + person) % len(SCENES)]
    take = sample_take(FIRST_HELD_OUT + person, HELD_OUT_CLOTHES)
    return TakeCase(replace(take, shot=film(action, camera), scene=scene), action, camera, person)


def load_small_amg(weights: Path = shipped.WEIGHTS, dtype: torch.dtype = torch.float32) -> AMG:
    """The small AMG, through the pack's own loader."""
    from ..amg.loading import load_amg

    folder = shipped.amg_folder(weights)
    return load_amg(folder, dtype, components=folder)


@torch.no_grad()
def film_takes(
    amg: AMG, avatars: Sequence[Tensor], captions: Sequence[str], seeds: Sequence[int], *, steps: int = STEPS,
    cfg: float = CFG,
) -> Tensor:  # fmt: skip
    """Videos (N, T, 64, 64, 3) in 0..1 of avatars (T, 64, 64, 3) each and captions, sampled as the node does it."""
    scale, noises, latents = amg.vae.config.scaling_factor, [], []
    for avatar, seed in zip(avatars, seeds, strict=True):
        generator, said = torch.Generator().manual_seed(seed), encode_frames(amg.vae, avatar, CPU)
        noises.append(torch.randn(1, said.shape[1] // 2, len(said), *said.shape[2:], generator=generator))
        latents.append(draw_latents(said, scale, generator))
    words = [encode_prompt(amg.text_encoder, amg.tokenizer, text, CPU) for text in captions]
    empty = encode_prompt(amg.text_encoder, amg.tokenizer, "", CPU).expand(len(words), -1, -1)
    made = sample_avatar_video(
        amg.unet, torch.cat(noises), torch.cat(latents), torch.cat(words).to(amg.dtype), empty.to(amg.dtype),
        steps=steps, cfg=cfg,
    )  # fmt: skip
    return torch.stack([decode_latents(amg.vae, video[None], CPU) for video in made])


def takes_through_vae(amg: AMG, videos: Sequence[Tensor]) -> Tensor:
    """Videos (N, T, 64, 64, 3) encoded and decoded: as good as a video of this model can be."""
    scale = amg.vae.config.scaling_factor
    coded = [draw_latents(encode_frames(amg.vae, video, CPU), scale, None) for video in videos]
    return torch.stack([decode_latents(amg.vae, latents, CPU) for latents in coded])
