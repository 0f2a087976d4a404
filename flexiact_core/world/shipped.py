"""Where the trained small world lies, and the example inputs that belong to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..cogvideox.family import COGVIDEOX_1_0
from .actions import ACTIONS, NUM_FRAMES
from .render import render_clip
from .scenes import Scene, caption, sample_scene, sample_target

# The folders are laid out and named as a user's own model folders, so that nothing else needs to know this world.
LABEL = "small world (built in)"
ACTORS_LABEL = "small people (built in)"
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
    """The file of an action's FAE, learned from `reference_scene(action)`. Raises KeyError for unknown actions."""
    return weights / "flexiact" / LABEL / f"{ACTIONS[action].name}.safetensors"


def camera_path(weights: Path = WEIGHTS) -> Path:
    """The file of the camera's move that the people's base learned from one clip."""
    return weights / "flexiact" / ACTORS_LABEL / "pan.safetensors"


def reference_scene(action: str) -> Scene:
    """The scene whose clip shows `action` in the examples and taught its FAE. Raises KeyError for unknown actions."""
    number = list(ACTIONS).index(ACTIONS[action].name)
    # One learns an action from a clip that shows it plainly: stripes tell a zoom from growth, soft dots hardly do.
    return sample_scene(1008 if action == "zoom" else 900 + number)


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
    reference = reference_scene(action)
    scene = sample_target(target, reference)
    return Example(
        image=render_clip(scene, None).frames[0],
        caption=caption(scene),
        reference=render_clip(reference, action).frames[:NUM_FRAMES],
        reference_caption=caption(reference),
        target=scene,
    )
