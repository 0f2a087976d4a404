"""Poses in time: another rate, another length, smoother, and without gaps."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from ..errors import SettingError
from .sequence import PoseSequence, take_frames, with_points

Missing = Literal["hold", "interpolate", "empty"]
Padding = Literal["last", "ping-pong"]


def resample_poses(poses: PoseSequence, fps: float) -> PoseSequence:
    """The poses at another rate, as many as a video of the same length has there; between two, in a straight line.

    Raises SettingError if fps is not above 0.
    """
    if not fps > 0:
        raise SettingError(f"fps {fps}: must be above 0.")
    if fps == poses.fps:
        return poses
    # The same number as video_files.read_video() gives: each frame is shown until the next, the last one too.
    number = max(1, math.ceil(poses.num_frames * fps / poses.fps - 1e-6))
    moments = (torch.arange(number, dtype=torch.float64) * poses.fps / fps).clamp(max=poses.num_frames - 1)
    return replace(_at_moments(poses, moments), fps=fps)


def spread_poses(poses: PoseSequence, num_frames: int) -> PoseSequence:
    """num_frames poses from the first to the last, evenly in time; the same seconds, so another fps.

    Raises SettingError if num_frames is under 1.
    """
    if num_frames < 1:
        raise SettingError(f"num_frames {num_frames}: at least 1 is needed.")
    last = poses.num_frames - 1
    spread = _at_moments(poses, torch.linspace(0, last, num_frames, dtype=torch.float64))
    return replace(spread, fps=poses.fps * (num_frames - 1) / last) if last and num_frames > 1 else spread


def fit_length(poses: PoseSequence, num_frames: int, padding: Padding = "last") -> PoseSequence:
    """Exactly num_frames poses: the first of them, or all and then the last one held, or there and back again.

    Raises SettingError if num_frames is under 1 or padding is unknown.
    """
    if num_frames < 1:
        raise SettingError(f"num_frames {num_frames}: at least 1 is needed.")
    count = torch.arange(num_frames)
    if padding == "last":
        return take_frames(poses, count.clamp(max=poses.num_frames - 1))
    if padding != "ping-pong":
        raise SettingError(f"padding '{padding}': choose last or ping-pong.")
    period = max(1, 2 * (poses.num_frames - 1))
    turn = count % period
    return take_frames(poses, torch.minimum(turn, period - turn).clamp(0, poses.num_frames - 1))


def smooth_poses(poses: PoseSequence, frames: float) -> PoseSequence:
    """Joints averaged over time by a bell of this standard deviation in frames; 0 leaves them as they are.

    A joint is averaged with the frames in which it is seen; what is absent stays absent.
    Raises SettingError if frames is negative.
    """
    if frames < 0:
        raise SettingError(f"smooth {frames}: 0 frames or more.")
    if frames == 0 or poses.num_frames < 2:
        return poses
    index = torch.arange(poses.num_frames, dtype=torch.float64)
    bell = torch.exp(-0.5 * ((index[:, None] - index[None]) / frames) ** 2)
    weight = poses.scores.double().flatten(1)
    summed = torch.einsum("st,tk,tkc->skc", bell, weight, poses.points.double().flatten(1, 2))
    mean = (summed / (bell @ weight).clamp(min=1e-12).unsqueeze(-1)).view(poses.points.shape).to(poses.points)
    return with_points(poses, torch.where((poses.scores > 0).unsqueeze(-1), mean, poses.points))


def fill_missing(poses: PoseSequence, missing: Missing = "hold") -> PoseSequence:
    """The poses with something in frames that a person is absent from.

    hold repeats the last pose, and before the first one that; interpolate goes in a straight line to the next one;
    empty leaves nobody there. count_missing() tells how many frames that are.
    Raises SettingError for another word.
    """
    if missing not in ("hold", "interpolate", "empty"):
        raise SettingError(f"missing '{missing}': choose hold, interpolate or empty.")
    if missing == "empty":
        return poses
    points, scores = poses.points.clone(), poses.scores.clone()
    present = poses.present()
    for person in range(poses.num_people):
        known = present[:, person].nonzero()[:, 0]
        if not 0 < len(known) < poses.num_frames:
            continue
        one = with_points(poses, poses.points[:, person : person + 1], poses.scores[:, person : person + 1])
        filled = _at_moments(take_frames(one, known), _moments_of(known, poses.num_frames, missing))
        points[:, person], scores[:, person] = filled.points[:, 0], filled.scores[:, 0]
    return with_points(poses, points, scores)


def count_missing(poses: PoseSequence) -> int:
    """In how many frames nobody is."""
    return int((~poses.present().any(1)).sum())


def _moments_of(known: Tensor, num_frames: int, missing: Missing) -> Tensor:
    """For each frame its place (a fraction) in the list of known frames."""
    frames = torch.arange(num_frames)
    after = torch.searchsorted(known, frames, right=True)
    before = (after - 1).clamp(min=0)
    after = after.clamp(max=len(known) - 1)
    if missing == "hold":
        return before.double()
    gap = (known[after] - known[before]).clamp(min=1)
    return before + ((frames - known[before]).clamp(min=0) / gap).double().clamp(0, 1) * (after > before)


def _at_moments(poses: PoseSequence, moments: Tensor) -> PoseSequence:
    """Poses at moments (float64, in frames): in a straight line where a joint is in both, else of the nearer frame."""
    before = moments.floor().long()
    after = (before + 1).clamp(max=poses.num_frames - 1)
    share = (moments - before).to(poses.points).view(-1, 1, 1)
    points, scores = (
        (part[before], part[after], share if part.ndim == 3 else share.unsqueeze(-1))
        for part in (poses.points, poses.scores)
    )
    in_both = (scores[0] > 0) & (scores[1] > 0)
    nearer = share >= 0.5
    mixed, mixed_scores = torch.lerp(*points), torch.lerp(*scores)
    nearest = torch.where(nearer.unsqueeze(-1), points[1], points[0])
    nearest_scores = torch.where(nearer, scores[1], scores[0])
    return with_points(
        poses,
        torch.where(in_both.unsqueeze(-1), mixed, nearest),
        torch.where(in_both, mixed_scores, nearest_scores).clamp(0, 1),
    )
