"""ACT-VAE: two LSTMs that go on from one pose, given an action.

Shape letters: B clips, T steps, P numbers of a pose (13 joints, x then y, 26 in all), Z latent width, A actions.
Source: Xu et al., Conditional Temporal Variational AutoEncoder for Action Video Prediction, IJCV 2023.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn import LSTM

from ..errors import SettingError, ShapeError

NUM_JOINTS = 13
POSE_WIDTH = 2 * NUM_JOINTS
# What the released networks were trained for.
RELEASED_STEPS = 4
RELEASED_LATENT = 512
# Index order of the released weights.
PENN_ACTIONS = (
    "tennis_serve", "pullup", "clean_and_jerk", "tennis_forehand", "baseball_pitch", "jumping_jacks", "golf_swing",
    "squat", "baseball_swing",
)  # fmt: skip


class ActionPoses(nn.Module):
    """The pose predictor: one LSTM whose output is the latent's mean and log variance, one whose output is the pose."""

    def __init__(self, num_actions: int, latent: int):
        super().__init__()
        self.num_actions, self.latent = num_actions, latent
        width = POSE_WIDTH + num_actions + latent
        self.latent_lstm = LSTM(width, 2 * latent)
        self.pose_lstm = LSTM(width, POSE_WIDTH)


class Step(NamedTuple):
    """One step: its pose (B, P), the latent's mean, log variance and draw (B, Z), and both LSTMs' states (h, c)."""

    pose: Tensor
    mean: Tensor
    log_variance: Tensor
    latent: Tensor
    latent_state: tuple[Tensor, Tensor]
    pose_state: tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class RollOut:
    """A whole prediction: poses (B, T, P), means and log variances of the latents (B, T, Z)."""

    poses: Tensor
    mean: Tensor
    log_variance: Tensor


def steps_of(model: ActionPoses, pose: Tensor, action: Tensor, noise: Tensor) -> Iterator[Step]:
    """One Step after another, as many as `noise` holds draws after its first.

    pose is (B, P) in -1..1, action (B,) whole numbers below A, noise (T + 1, B, Z) standard normal: the first draw is
    the latent before step 1. Each step takes the last pose and the last latent; no true pose is fed in.
    Raises ShapeError if the three do not fit each other or the model, SettingError for an action it does not have.
    """
    _check(model, pose, action, noise)
    label = F.one_hot(action.long(), model.num_actions).to(pose.dtype)
    latent, latent_state, pose_state = noise[0], None, None
    for draw in noise[1:]:
        known = torch.cat([pose, label], dim=-1)
        out, latent_state = model.latent_lstm(torch.cat([known, latent], dim=-1)[None], latent_state)
        mean, log_variance = out[0].chunk(2, dim=-1)
        latent = mean + (log_variance / 2).exp() * draw
        out, pose_state = model.pose_lstm(torch.cat([known, latent], dim=-1)[None], pose_state)
        pose = out[0]
        yield Step(pose, mean, log_variance, latent, latent_state, pose_state)


def roll_out(model: ActionPoses, pose: Tensor, action: Tensor, noise: Tensor) -> RollOut:
    """All steps of steps_of(), stacked."""
    steps = list(steps_of(model, pose, action, noise))
    return RollOut(
        torch.stack([step.pose for step in steps], dim=1),
        torch.stack([step.mean for step in steps], dim=1),
        torch.stack([step.log_variance for step in steps], dim=1),
    )


def draw_noise(num_clips: int, steps: int, latent: int, generator: torch.Generator) -> Tensor:
    """Standard normal noise (T + 1, B, Z) on the CPU, drawn clip by clip: a clip's noise does not depend on B."""
    clips = [torch.randn(steps + 1, latent, generator=generator) for _ in range(num_clips)]
    return torch.stack(clips, dim=1)


def _check(model: ActionPoses, pose: Tensor, action: Tensor, noise: Tensor) -> None:
    if pose.ndim != 2 or pose.shape[1] != POSE_WIDTH:
        raise ShapeError(f"poses: (clips, {POSE_WIDTH}) expected, {tuple(pose.shape)} found.")
    if action.shape != pose.shape[:1]:
        raise ShapeError(f"actions: one for each of {len(pose)} poses expected, {tuple(action.shape)} found.")
    if noise.ndim != 3 or noise.shape[0] < 2 or noise.shape[1:] != (len(pose), model.latent):
        raise ShapeError(
            f"noise: (steps + 1, {len(pose)}, {model.latent}) with at least 1 step expected, "
            f"{tuple(noise.shape)} found."
        )
    if len(action) and not 0 <= int(action.min()) <= int(action.max()) < model.num_actions:
        raise SettingError(
            f"action {action.tolist()}: this model has actions 0 to {model.num_actions - 1}. Choose one of them."
        )
