"""What a video of a take shows, read off the pixels: where the person is, and before which scene."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..metrics.silhouettes import overlap
from .actor_render import FLOOR_SHADE
from .takes import SCENES, Take, dress, take_mask

# How far from a scene's colour a ground may be and still have its name.
_NAMED = 0.12


@dataclass(frozen=True)
class SeenTake:
    """overlap: of the person's outline with the take's, 0..1, over all frames. scene: the name of the ground's
    colour, or "" for a colour without a name."""

    overlap: float
    scene: str


def ground_colour(frames: Tensor) -> Tensor:
    """The colour (3,) of what most of the pixels of frames (T, H, W, 3) show."""
    # On CPUs, torch's median of a tensor that repeats itself with stride 0 (an expanded picture) is random memory.
    return frames.reshape(-1, 3).contiguous().median(0).values


def silhouette(frames: Tensor, take: Take) -> Tensor:
    """Where the person of a take is in frames (T, 64, 64, 3) in 0..1: nearer to the person's colours than to the
    ground's; bool (T, 64, 64)."""
    ground = ground_colour(frames) * torch.linspace(FLOOR_SHADE, 1.0, 3)[:, None]
    person = torch.unique(dress(take.actor), dim=0)
    near = [(frames[..., None, :] - colours).square().sum(-1).amin(-1) for colours in (person, ground)]
    return near[0] < near[1]


def name_of_scene(frames: Tensor) -> str:
    """The name of the scene that frames (T, H, W, 3) in 0..1 are filmed in; "" if it has none."""
    ground = ground_colour(frames)
    apart = {name: float((ground - torch.tensor(tone)).norm()) for name, tone in SCENES.items()}
    nearest = min(apart, key=apart.get)
    return nearest if apart[nearest] < _NAMED else ""


def overlaps(frames: Tensor, take: Take) -> Tensor:
    """How much of the person's outline in each of frames (T, 64, 64, 3) is the take's: (T,) in 0..1."""
    return torch.from_numpy(overlap(silhouette(frames, take).numpy(), take_mask(take).numpy()))


def measure_take(frames: Tensor, take: Take) -> SeenTake:
    """What frames (T, 64, 64, 3) in 0..1 show of a take."""
    return SeenTake(float(overlaps(frames, take).mean()), name_of_scene(frames))
