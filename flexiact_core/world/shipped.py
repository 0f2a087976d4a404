"""Where the trained small world lies, and the example inputs that belong to it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..cogvideox.family import COGVIDEOX_1_0
from .actions import ACTIONS, motion_of
from .render import render_clip, render_frames
from .scenes import Scene, caption, sample_scene, sample_target

# The folders are laid out and named as a user's own model folders, so that nothing else needs to know this world.
LABEL = "small world (built in)"
ACTORS_LABEL = "small people (built in)"
CAMERA_MOVE = "pan"
WEIGHTS = Path(__file__).parent / "weights"
FPS = COGVIDEOX_1_0.fps


def base_folder(weights: Path = WEIGHTS) -> Path:
    """The diffusers folder of the base."""
    return weights / "CogVideo" / LABEL


def actors_folder(weights: Path = WEIGHTS) -> Path:
    """The diffusers folder of the people's base, of DynamiCtrl's family."""
    return weights / "CogVideo" / ACTORS_LABEL


def amg_folder(weights: Path = WEIGHTS) -> Path:
    """The diffusers folder of the small AMG, which films people."""
    return weights / "amg" / ACTORS_LABEL


def refadapter_path(weights: Path = WEIGHTS) -> Path:
    """The RefAdapter's file."""
    return weights / "flexiact" / LABEL / "refadapter.safetensors"


def fae_path(action: str, weights: Path = WEIGHTS) -> Path:
    """The file of an action's FAE, learned from the clip of REFERENCE. Raises KeyError for unknown actions."""
    return weights / "flexiact" / LABEL / f"{ACTIONS[action].name}.safetensors"


def actor_fae_path(action: str, weights: Path = WEIGHTS) -> Path:
    """The file of what the people's base learned from one clip: an action of figures.ACTIONS, or CAMERA_MOVE."""
    return weights / "flexiact" / ACTORS_LABEL / f"{action}.safetensors"


# One subject shows every action, so that the same target differs from it in every action. A square of these leaks least
# of its shape into what is learned.
REFERENCE = replace(sample_scene(900), shape="square", colour="purple", radius=12.5, x=31.0, y=32.0)


@dataclass(frozen=True)
class Example:
    """Inputs for one transfer.

    image: the target, (64, 64, 3) float32 in 0..1, and caption: the words for it.
    reference: the clip that shows the action, (17, 64, 64, 3), at 8 frames per second, and
    reference_caption: the words for it, the action not among them.
    """

    image: np.ndarray
    caption: str
    reference: np.ndarray
    reference_caption: str
    target: Scene


def example(action: str, target: int = 0) -> Example:
    """The Example of an action with one of endlessly many held-out targets, numbered from 0.

    Raises KeyError for unknown actions.
    """
    motion = motion_of(action)
    scene = sample_target(target, REFERENCE)
    return Example(
        image=render_clip(scene, None).frames[0],
        caption=caption(scene),
        reference=render_frames(REFERENCE, motion),
        reference_caption=caption(REFERENCE),
        target=scene,
    )
