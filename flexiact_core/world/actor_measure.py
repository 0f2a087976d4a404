"""How well a video of the people's world follows poses and keeps its person, read off the pixels.

Head, hands and feet have colours that nothing else has: where they are is read from those, not from a detector.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ..act_vae.figures import ACTIONS, JOINTS
from ..metrics.poses import correct_keypoints
from .actor_render import PARTS, colours_of, cover_of_parts, render_ground, thickness_of
from .actors import TEMPO, TONES, Actor, Performance, act_out, joints_px

# The joints that are read, and the part of PARTS that shows each.
READ = ("head", "left_wrist", "right_wrist", "left_ankle", "right_ankle")
_SHOWN = [next(number for number, part in enumerate(PARTS) if part[:2] == (name, name)) for name in READ]
NEAR = 0.1
_SOFTNESS = 0.012
_REACH_PX = 4.5
_SEEN = 0.5  # the share of a marker that has to be uncovered in the truth for it to count
_LEAST_PX = 3.0  # of a marker's colour, for it to be found at all
_OUTLIER = 0.01


def read_joints(frames: Tensor, actor: Actor) -> tuple[Tensor, Tensor]:
    """Where READ are in a video (T, 64, 64, 3) in 0..1: (T, 5, 2) in px, and which were found, bool (T, 5)."""
    worn = colours_of(actor)[thickness_of(actor.kind) > 0]
    known = torch.cat([worn, torch.tensor([TONES[actor.tone]]), torch.tensor([TONES[actor.tone]]) * 0.86])
    distance = (frames.float()[:, None] - known[:, None, None]).square().sum(-1)
    share = torch.softmax(-distance / _SOFTNESS, 1)[:, _SHOWN]
    # Specks are outvoted by their neighbours.
    voted = F.avg_pool2d(share, 5, 1, 2) * 25
    best, place = voted.flatten(2).max(-1)
    rows, columns = place // share.shape[-1], place % share.shape[-1]
    centres = torch.arange(share.shape[-1]) + 0.5
    dx, dy = centres - (columns[..., None] + 0.5), centres - (rows[..., None] + 0.5)
    near = dx.square()[..., None, :] + dy.square()[..., :, None] <= _REACH_PX**2
    weight = share * near
    total = weight.sum((-1, -2)).clamp(min=1e-6)
    x, y = (weight.sum(-2) * centres).sum(-1) / total, (weight.sum(-1) * centres).sum(-1) / total
    return torch.stack([x, y], -1), best >= _LEAST_PX


def true_joints(actor: Actor, performance: Performance) -> tuple[Tensor, Tensor]:
    """Where READ are in the true clip: (T, 5, 2) in px, and which are to be seen there, bool (T, 5)."""
    joints = joints_px(actor, performance)
    points = joints[:, [JOINTS.index(name) for name in READ], :2]
    thick = thickness_of(actor.kind)
    shown = cover_of_parts(joints, thick=thick)[:, _SHOWN].sum((-1, -2))
    whole = torch.tensor([torch.pi * (PARTS[number][2] * float(thick[number])) ** 2 for number in _SHOWN])
    return points, shown >= _SEEN * whole


def follow_share(frames: Tensor, actor: Actor, performance: Performance, near: float = NEAR) -> float:
    """The share of the joints that are to be seen after the first frame within `near` body heights of their place."""
    return _share_near(*read_joints(frames, actor), *true_joints(actor, performance), near * actor.height)


def _share_near(points: Tensor, found: Tensor, true: Tensor, seen: Tensor, near_px: float) -> float:
    known = points.masked_fill(~found[..., None], torch.nan)
    return correct_keypoints(known[1:], true[1:], near_px, seen[1:])


def read_pan(frames: Tensor, actor: Actor) -> Tensor:
    """How far the camera has moved to the right, px (T,): the place of the background that fits best."""
    places = torch.arange(-20.0, 20.5, 0.5)
    bank = render_ground(actor, places)[:, ::2, ::2]
    error = (frames.float()[:, None, ::2, ::2] - bank).square().clamp(max=_OUTLIER).mean((-1, -2, -3))
    return places[error.argmin(1)]


@dataclass(frozen=True)
class Seen:
    """What a video shows. follow: as follow_share(). limbs: slope of hands and feet. pan: px at the end. nearest:
    the action whose true course is nearest, at whatever tempo near the world's."""

    follow: float
    limbs: float
    pan: float
    nearest: str


def measure_actor(frames: Tensor, actor: Actor, performance: Performance) -> Seen:
    """What a video (T, 64, 64, 3) in 0..1 of `actor` shows of a performance that it was to follow."""
    points, found = read_joints(frames, actor)
    true, seen = true_joints(actor, performance)
    both = (found & seen)[1:]
    start = true[:1].expand_as(true)[1:]
    moved, meant = (points[1:] - start)[both], (true[1:] - start)[both]
    limbs = float((moved * meant).sum() / meant.square().sum().clamp(min=1e-6))
    return Seen(
        _share_near(points, found, true, seen, NEAR * actor.height), limbs, float(read_pan(frames, actor)[-1]),
        nearest_action(points, found, actor),
    )  # fmt: skip


def nearest_action(points: Tensor, found: Tensor, actor: Actor) -> str:
    """The action whose joints are nearest to these (T, 5, 2), where both were found (T, 5) and are to be seen."""
    distances = {}
    for name, courses in _true_courses(actor, len(points)).items():
        distances[name] = min(_distance(points, found, *course) for course in courses)
    return min(distances, key=distances.get)


def _distance(points: Tensor, found: Tensor, true: Tensor, seen: Tensor) -> float:
    # What should be seen and is not counts as a quarter of a body away.
    apart = torch.where(found, (points - true).norm(dim=-1).clamp(max=10.0), torch.tensor(10.0))
    return float(apart[seen].mean())


@lru_cache(maxsize=64)
def _true_courses(actor: Actor, frames: int) -> dict[str, list[tuple[Tensor, Tensor]]]:
    tempos = [TEMPO * share for share in (0.7, 0.85, 1.0, 1.2, 1.4)]
    return {
        name: [true_joints(actor, act_out(name, tempo=tempo, frames=frames)) for tempo in tempos] for name in ACTIONS
    }
