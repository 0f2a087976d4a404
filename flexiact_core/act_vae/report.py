"""A model's poses measured against true ones, in numbers, words and a picture.

Shape letters: B clips, K variants, T poses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import SettingError, ShapeError
from ..metrics.poses import diversity, pose_errors
from ..plots import tile_videos
from ..poses.people import choose_person
from ..poses.sequence import PoseSequence, check_poses
from .letterbox import grow_box, person_box, to_box
from .loading import ACTVAE
from .measure import held_out_figures, knows_figures, measure_poses, seen_actions
from .model import ActionPoses, draw_noise, roll_out
from .predict import action_number
from .render import draw_square, joints_of

HELD_OUT_CLIPS = 512


@dataclass(frozen=True, eq=False)
class TrueClips:
    """Clips to measure against: poses (B, T + 1, 26) in -1..1, actions (B,), and the box (4,) of the first in pixels.

    box is None where the clips came from no picture.
    """

    poses: Tensor
    action: Tensor
    box: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Report:
    """error and best in pixels of 128; the action seen most often; all measures; rows of drawn poses (1, H, W, 3)."""

    error: float
    best: float
    nearest: str
    text: str
    picture: Tensor


def take_clips(model: ACTVAE, truths: Sequence[PoseSequence], action: str) -> TrueClips:
    """Every stretch of model.steps + 1 frames of the true poses; without any, figures that no training has seen.

    Raises SettingError for an action that the model does not have, or without truth for a model of other actions than
    the figures'; ShapeError for poses that are too short or lack a person.
    """
    if not truths:
        if not knows_figures(model):
            raise SettingError(
                "truth: this model has actions of its own. Connect true poses of one of them, such as a detector's."
            )
        figures = held_out_figures(HELD_OUT_CLIPS, model.steps)
        return TrueClips(figures.poses, figures.action)
    number, length = action_number(model, action), model.steps + 1
    clips, boxes = [], []
    for truth in truths:
        joints = joints_of(choose_person(check_poses(truth, "truth")))
        for first in range(len(joints) - length + 1):
            window = joints[first : first + length]
            boxes.append(grow_box(person_box(window[0]), model.margin))
            clips.append(to_box(window, boxes[-1]).flatten(1))
    if not clips:
        raise ShapeError(
            f"truth: {max(truth.num_frames for truth in truths)} frames; {length} or more are needed, the first pose "
            f"and {model.steps} after it."
        )
    return TrueClips(torch.stack(clips), torch.full((len(clips),), number), boxes[0])


def take_variants(clips: TrueClips, poses: Sequence[PoseSequence]) -> Tensor | None:
    """Given poses (K, 1, T, 26) in the box of the first true clip, the first pose left out; None if none are given.

    Raises ShapeError if the truth was left open or one of them is too short.
    """
    if not poses:
        return None
    if clips.box is None:
        raise ShapeError("poses: they are measured against true ones. Connect 'truth', or leave both open.")
    length = clips.poses.shape[1]
    made = []
    for number, variant in enumerate(poses, 1):
        if variant.num_frames < length:
            raise ShapeError(f"poses, variant {number}: {variant.num_frames} frames; {length} or more are needed.")
        joints = joints_of(choose_person(check_poses(variant, f"poses, variant {number}")))[:length]
        made.append(to_box(joints, clips.box).flatten(1)[None, 1:])
    return torch.stack(made)


def measure_clips(model: ACTVAE, clips: TrueClips, variants: Tensor | None = None, seed: int = 0) -> Report:
    """The measures of the model's own poses, or of those given, beside standing still and another action's name."""
    measures = measure_poses(model, clips.poses, clips.action, seed)
    source, true = clips.poses[:, 0], clips.poses[:, 1:]
    made, swapped = _examples(model, clips, seed)
    error, best, lines = measures.error, measures.best, measures.lines()
    if variants is None:
        seen = seen_actions(model, source, made)
    else:
        errors = pose_errors(variants, true[:1])
        error, best, made = float(errors.mean()), float(errors.min()), variants[0]
        seen = seen_actions(model, source[:1].expand(len(variants), -1), variants[:, 0])
        given = (
            f"given poses, {len(variants)} variant(s): error {error:.2f} px of 128, best {best:.2f}, diversity "
            f"{diversity(variants):.2f}"
        )
        lines = [given, "the model itself:", *lines]
    nearest = model.actions[int(seen.mode().values)]
    rows = [torch.cat([source[:1], clip[0]]) for clip in (true, made, swapped)]
    picture = tile_videos([draw_square(row) for row in rows], len(rows[0]))
    return Report(error, best, nearest, "\n".join([*lines, f"seen most often: {nearest}"]), picture)


@torch.no_grad()
def _examples(model: ACTVAE, clips: TrueClips, seed: int) -> tuple[Tensor, Tensor]:
    """One draw for each clip, (B, T, 26), and one of the first clip with the next action's name."""
    source, steps = clips.poses[:, 0], clips.poses.shape[1] - 1
    noise = draw_noise(len(source), steps, model.predictor.latent, torch.Generator().manual_seed(seed))
    made = roll_out(model.predictor, source, clips.action, noise).poses
    other = (clips.action[:1] + 1) % len(model.actions)
    return made, roll_out(model.predictor, source[:1], other, noise[:, :1]).poses


@torch.no_grad()
def draw_first(predictor: ActionPoses, poses: Tensor, action: Tensor) -> Tensor:
    """Frames (T + 1, 128, 128, 3) in 0..1: the first of clips (B, T + 1, 26) as the predictor would go on."""
    noise = torch.zeros(poses.shape[1], 1, predictor.latent)
    made = roll_out(predictor, poses[:1, 0], action[:1], noise).poses[0]
    return draw_square(torch.cat([poses[0, :1], made]))
