"""Learning to predict poses.

Shape letters: B clips, T steps, P numbers of a pose (26), Z latent width, A actions.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import SettingError
from ..metrics.poses import pose_errors
from ..training import Course, Recipe, TrainingState, descend
from .loading import LATENTS, POSES, make_model
from .losses import KL_WEIGHT, NUM_DRAWS, pose_loss
from .model import ActionPoses, roll_out

# The authors' two optimisers have the same numbers and one loss, and Adam takes each weight by itself: they are one.
RELEASED_RECIPE = Recipe(
    betas=(0.5, 0.999), weight_decay=1e-4, gradient_clip=None, usual_rate=2e-4, decoupled=False, halve_every=100_000
)

# Clips as (B, T + 2, P), the source pose first and one target more than steps, and their actions (B,).
DrawClips = Callable[[int, torch.Generator], tuple[Tensor, Tensor]]


def start_predictor(num_actions: int, latent: int, generator: torch.Generator) -> ActionPoses:
    """A new predictor with torch's usual first weights of an LSTM, drawn from `generator`."""
    model = ActionPoses(num_actions, latent)
    with torch.no_grad():
        for lstm in (model.latent_lstm, model.pose_lstm):
            reach = 1 / math.sqrt(lstm.hidden_size)
            for weight in lstm.parameters():
                weight.copy_((torch.rand(weight.shape, generator=generator) * 2 - 1) * reach)
    return model


def fit_action_poses(
    draw_clips: DrawClips,
    course: Course,
    *,
    num_actions: int,
    latent: int,
    kl_weight: float = KL_WEIGHT,
    start_from: ActionPoses | None = None,
    recipe: Recipe = RELEASED_RECIPE,
) -> TrainingState:
    """The state after the course; predictor_of() makes a predictor of its parameters.

    draw_clips gives so many clips, at random, and says by their length how many poses are predicted. start_from is
    copied, not changed.
    Raises as training.descend() does, and SettingError if a setting is out of range, or start_from has other actions or
    another latent width.
    """
    course.check(recipe)
    _check(num_actions, kl_weight)
    generator, device = course.generator(), course.device
    learner = start_predictor(num_actions, latent, generator)
    if start_from is not None:
        _copy(start_from, learner)
    learner.to(device).train()
    # That part of the loss is a sum over clips; the mean over processes of all parts is to be that of the whole batch.
    kl_of_part = kl_weight * course.shard[1]

    def compute_loss() -> Tensor:
        poses, action = draw_clips(course.whole_batch, generator)
        noise = torch.randn(NUM_DRAWS, poses.shape[1] - 1, len(poses), latent, generator=generator)
        own = course.own_part
        poses, action, noise = poses[own].to(device), action[own].to(device), noise[:, :, own].to(device)
        return pose_loss(learner, poses[:, 0], poses[:, 1:], action, noise, kl_of_part).total

    return descend(dict(learner.named_parameters()), compute_loss, generator, course, recipe=recipe)


def _check(num_actions: int, kl_weight: float) -> None:
    if num_actions < 2:
        raise SettingError(f"training: {num_actions} action(s); 2 or more are needed. Add clips of another action.")
    if not (math.isfinite(kl_weight) and kl_weight >= 0):
        raise SettingError(f"kl {kl_weight}: 0 or more is needed. The released value is {KL_WEIGHT}.")


def _copy(first: ActionPoses, learner: ActionPoses) -> None:
    if (first.num_actions, first.latent) != (learner.num_actions, learner.latent):
        raise SettingError(
            f"start_from: a model of {first.num_actions} actions and a latent of {first.latent}; "
            f"{learner.num_actions} and {learner.latent} are asked for. Set them alike, or start anew."
        )
    learner.load_state_dict(first.state_dict())


def predictor_of(state: TrainingState) -> ActionPoses:
    """The predictor that a state of fit_action_poses() has learned."""
    parts = {
        kind: {f"rnn.{key.removeprefix(prefix)}": value for key, value in state.parameters.items()
               if key.startswith(prefix)}
        for kind, prefix in ((POSES, "pose_lstm."), (LATENTS, "latent_lstm."))
    }  # fmt: skip
    return make_model(parts, actions=None).predictor


@torch.no_grad()
def measure_predictor(model: ActionPoses, poses: Tensor, action: Tensor, seed: int = 0) -> tuple[float, float]:
    """The mean error in pixels of 128 of one prediction of clips (B, T + 1 or more, P), and that of standing still."""
    generator = torch.Generator().manual_seed(seed)
    true = poses[:, 1:]
    noise = torch.randn(true.shape[1] + 1, len(poses), model.latent, generator=generator)
    device = next(model.parameters()).device
    made = roll_out(model, poses[:, 0].to(device), action.to(device), noise.to(device)).poses.cpu()
    still = poses[:, :1].expand_as(true)
    return float(pose_errors(made, true).mean()), float(pose_errors(still, true).mean())
