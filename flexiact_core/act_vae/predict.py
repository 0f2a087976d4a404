"""From one pose and an action's name to poses over time.

Shape letters: K variants, T steps, P numbers of a pose (26), Z latent width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import SettingError
from ..poses.sequence import PoseSequence
from ..poses.skeletons import PENN13
from .letterbox import from_box, grow_box, person_box, to_box
from .loading import ACTVAE
from .model import NUM_JOINTS, draw_noise, roll_out
from .source import SourcePose

MAX_STEPS = 64
MAX_VARIANTS = 16


@dataclass(frozen=True)
class HowTo:
    """How poses are predicted.

    steps poses follow the first one; 0 is as many as the model was trained for. With chain they are made in windows of
    that many, each from the last pose of the one before, else in one go. temperature 0..2 scales the random numbers:
    0 always gives the same, 1 is the released way. num_frames, if not 0, is how many poses the result is spread over.
    """

    steps: int = 0
    chain: bool = False
    variants: int = 1
    temperature: float = 1.0
    num_frames: int = 0
    fps: float = 8.0
    seed: int = 0


@dataclass(frozen=True)
class Prediction:
    """Poses by variant, the source pose first in each, in pixels of its canvas; and what was done, in sentences."""

    variants: tuple[PoseSequence, ...]
    notes: tuple[str, ...]


def predict_poses(
    model: ACTVAE, source: SourcePose, action: str, how: HowTo = HowTo(), device: torch.device | str = "cpu"
) -> Prediction:
    """The poses of an action that follow a source pose.

    Variant number k is the one variant of seed + k. Raises SettingError for an action that the model does not have or
    a setting out of range.
    """
    number = action_number(model, action)
    _check(how)
    steps = how.steps or model.steps
    windows = _windows(steps, model.steps if how.chain else steps)
    box = grow_box(person_box(source.points), model.margin)
    start = to_box(source.points, box).flatten().to(device)
    poses = continue_poses(model, start.expand(how.variants, -1), number, windows, how.temperature, how.seed)
    places = from_box(poses.cpu().unflatten(-1, (NUM_JOINTS, 2)), box)
    # The source pose goes out as it came in, wherever the box would have put it.
    places = torch.cat([source.points.expand(how.variants, 1, -1, -1), places], dim=1)
    if how.num_frames:
        places = spread_smoothly(places, how.num_frames)
    sequences = tuple(
        PoseSequence(clip[:, None], torch.ones(len(clip), 1, NUM_JOINTS), source.canvas, how.fps, PENN13)
        for clip in places
    )
    return Prediction(sequences, (*source.notes, *_notes(model, action, steps, len(windows), how)))


def continue_poses(
    model: ACTVAE, start: Tensor, action: int, windows: list[int], temperature: float, seed: int
) -> Tensor:
    """Poses (K, T, P) in -1..1 after `start` (K, P), window by window, each from the last pose of the one before."""
    generators = [torch.Generator().manual_seed(seed + variant) for variant in range(len(start))]
    label = torch.full((len(start),), action, device=start.device)
    made, pose = [], start
    with torch.no_grad():
        for steps in windows:
            noise = torch.cat([draw_noise(1, steps, model.predictor.latent, one) for one in generators], dim=1)
            poses = roll_out(model.predictor, pose, label, noise.to(start) * temperature).poses
            made.append(poses)
            pose = poses[:, -1]
    return torch.cat(made, dim=1)


def spread_smoothly(points: Tensor, num_frames: int) -> Tensor:
    """Points (K, T, J, 2) at num_frames moments from the first to the last, on a cubic curve through all of them."""
    import numpy as np
    from scipy.interpolate import CubicSpline

    moments = np.linspace(0, points.shape[1] - 1, num_frames)
    curve = CubicSpline(np.arange(points.shape[1]), points.double().numpy(), axis=1, bc_type="natural")
    return torch.from_numpy(curve(moments)).to(points)


def action_number(model: ACTVAE, action: str) -> int:
    """The number of an action's name. Raises SettingError, naming those the model has, if it has no such action."""
    if action not in model.actions:
        raise SettingError(
            f"action '{action}': {model.name or 'this model'} does not have it. Choose one of "
            f"{', '.join(model.actions)}."
        )
    return model.actions.index(action)


def _check(how: HowTo) -> None:
    for name, value, low, high in (
        ("steps", how.steps, 0, MAX_STEPS),
        ("variants", how.variants, 1, MAX_VARIANTS),
        ("temperature", how.temperature, 0, 2),
    ):
        if not low <= value <= high:
            raise SettingError(f"{name} {value}: {low} to {high} is possible.")
    if how.num_frames < 0 or how.num_frames == 1:
        raise SettingError(f"num_frames {how.num_frames}: 0, or 2 and more.")


def _windows(steps: int, longest: int) -> list[int]:
    full, rest = divmod(steps, longest)
    return [longest] * full + ([rest] if rest else [])


def _notes(model: ACTVAE, action: str, steps: int, num_windows: int, how: HowTo) -> list[str]:
    notes = [f"{action}: {steps} poses after the first, {how.variants} variant(s) from seed {how.seed}"]
    if num_windows > 1:
        notes.append(f"in {num_windows} windows: the model was trained for {model.steps} steps from a pose")
    elif steps > model.steps:
        notes.append(f"the model was trained for {model.steps} steps; what follows them is its own guess")
    count = how.num_frames or steps + 1
    spread = f"spread over {how.num_frames} frames" if how.num_frames else f"{count} frames as predicted"
    return [*notes, f"{spread}, {count / how.fps:.2f} s at {how.fps:g} frames a second"]
