"""How well a model's poses show their action, beside standing still and beside another action's name.

On clips that start in the middle of an action the first pose alone may name it, so neither an error nor an accuracy
says much without these two.
Shape letters: B clips, T poses, P numbers of a pose (26), D draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ShapeError
from ..metrics.poses import diversity, frechet_distance, pose_errors
from .figures import ACTIONS, FigureClips, draw_figures
from .judge import judge_actions
from .loading import ACTVAE
from .model import POSE_WIDTH, roll_out

DRAWS = 10
# Fewer clips than this say nothing about a distribution.
LEAST_CLIPS = 32
HELD_OUT_SEED = 9_000_001


@dataclass(frozen=True)
class PoseMeasures:
    """Errors and diversity in pixels of 128; accuracies 0..1, how often the action was seen that was meant.

    still is the first pose repeated, swapped the prediction with another action's name, halves the Frechet distance of
    one half of the true clips to the other. Frechet distances are None for too few clips.
    """

    num_clips: int
    error: float
    best: float
    still_error: float
    swapped_error: float
    diversity: float
    accuracy: float
    true_accuracy: float
    still_accuracy: float
    swapped_accuracy: float
    frechet: float | None
    still_frechet: float | None
    halves_frechet: float | None

    def lines(self) -> list[str]:
        """The measures in words, a line each."""
        lines = [
            f"{self.num_clips} clips, {DRAWS} draws of each",
            f"error {self.error:.2f} px of 128, best of {DRAWS} {self.best:.2f}; "
            f"standing still {self.still_error:.2f}, another action's name {self.swapped_error:.2f}",
            f"diversity {self.diversity:.2f} px",
            f"action seen as meant {self.accuracy:.2f}; in the true clips {self.true_accuracy:.2f}, standing still "
            f"{self.still_accuracy:.2f}; another action's name followed {self.swapped_accuracy:.2f}",
        ]
        if self.frechet is None:
            return [*lines, f"Frechet distance: {LEAST_CLIPS} clips or more are needed"]
        return [
            *lines,
            f"Frechet distance {self.frechet:.2f}; standing still {self.still_frechet:.2f}, half of the true clips to "
            f"the other {self.halves_frechet:.2f}",
        ]


@torch.no_grad()
def measure_poses(model: ACTVAE, clips: Tensor, action: Tensor, seed: int = 0) -> PoseMeasures:
    """The measures of a model on true clips (B, T + 1, P) in -1..1, the source pose first, of actions (B,).

    Raises ShapeError if there is no clip, or none with a pose after the first.
    """
    if clips.ndim != 3 or not len(clips) or clips.shape[1] < 2 or clips.shape[2] != POSE_WIDTH:
        raise ShapeError(f"poses to measure: (clips, 2 or more poses, {POSE_WIDTH}), {tuple(clips.shape)} found.")
    generator = torch.Generator().manual_seed(seed)
    source, true = clips[:, 0], clips[:, 1:]
    still = source[:, None].expand_as(true)
    other = _others(action, len(model.actions), generator)
    made = torch.stack([_predict(model, source, action, true.shape[1], generator) for _ in range(DRAWS)])
    swapped = _predict(model, source, other, true.shape[1], generator)
    errors = pose_errors(made, true)

    def share_seen(poses: Tensor, meant: Tensor) -> float:
        return float((seen_actions(model, source, poses) == meant).float().mean())

    def distance(poses: Tensor, true: Tensor) -> float | None:
        return frechet_distance(_features(model, poses), _features(model, true)) if len(clips) >= LEAST_CLIPS else None

    whole = torch.cat([source[:, None], made[0]], dim=1)
    return PoseMeasures(
        len(clips),
        float(errors.mean()),
        float(errors.amin(0).mean()),
        float(pose_errors(still, true).mean()),
        float(pose_errors(swapped, true).mean()),
        diversity(made),
        share_seen(made[0], action),
        share_seen(true, action),
        share_seen(still, action),
        share_seen(swapped, other),
        distance(whole, clips),
        distance(torch.cat([source[:, None], still], dim=1), clips),
        distance(clips[::2], clips[1::2]),
    )


@torch.no_grad()
def seen_actions(model: ACTVAE, source: Tensor, poses: Tensor) -> Tensor:
    """The number of the action that poses (B, T, P) after a source pose (B, P) show, (B,).

    The model's judge says it; a model without one is asked for its own poses of every action, and the nearest wins.
    """
    if model.judge is not None:
        return judge_actions(model.judge, torch.cat([source[:, None], poses], dim=1))
    noise = torch.zeros(poses.shape[1] + 1, len(source), model.predictor.latent)
    apart = [
        pose_errors(roll_out(model.predictor, source, torch.full((len(source),), number), noise).poses, poses)
        for number in range(len(model.actions))
    ]
    return torch.stack(apart).argmin(0)


def held_out_figures(num_clips: int, steps: int, neutral: float = 0.5) -> FigureClips:
    """Figures that no training draws, with `steps` poses after the first; half of them start from the stance."""
    return draw_figures(num_clips, steps + 1, torch.Generator().manual_seed(HELD_OUT_SEED), neutral=neutral)


def knows_figures(model: ACTVAE) -> bool:
    """Whether a model's actions are those of the procedural figures."""
    return model.actions == tuple(ACTIONS)


def _predict(model: ACTVAE, source: Tensor, action: Tensor, steps: int, generator: torch.Generator) -> Tensor:
    noise = torch.randn(steps + 1, len(source), model.predictor.latent, generator=generator)
    return roll_out(model.predictor, source, action, noise).poses


def _others(action: Tensor, number: int, generator: torch.Generator) -> Tensor:
    if number < 2:
        return action
    return (action + 1 + torch.randint(number - 1, action.shape, generator=generator)) % number


def _features(model: ACTVAE, clips: Tensor) -> Tensor:
    if model.judge is not None:
        return model.judge.features(clips)
    return (clips[:, 1:] - clips[:, :1]).flatten(1)
