"""Actors to pixels: soft capsules from joint to joint, drawn far to near."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import torch
from torch import Tensor

from ..act_vae.figures import JOINTS
from ..poses.draw import Look, draw_poses
from .actors import FRAME_PX, MARKERS, SHIRTS, SKINS, TONES, TROUSERS, Actor, Performance, joints_px, poses_of
from .bodies import KINDS, PERSON

# Felt rather than cut out, as the sprites.
EDGE_PX = 4.6
# At 64 pixels the release's lines would be a quarter of a pixel wide.
POSE_LOOK = Look(stroke=88.0)
WAVE_CONTRAST = 0.055
FLOOR_SHADE = 0.86
# How far behind the soles the floor ends.
FLOOR_RISE_PX = 5.0

# What is drawn: from one joint to the other (names, or the middle of two), radius in px, whose colour, its share of
# light, and how much nearer than its joints it lies, px.
PARTS: tuple[tuple[str, str, float, str, float, float], ...] = (
    ("chest", "hips", 5.0, "shirt", 1.0, 0.0),
    ("left_hip", "right_hip", 3.6, "trousers", 1.0, 0.5),
    *((f"{side}_shoulder", f"{side}_elbow", 2.9, "shirt", 0.8, 1.0) for side in ("left", "right")),
    *((f"{side}_elbow", f"{side}_wrist", 2.7, "shirt", 0.8, 2.0) for side in ("left", "right")),
    *((f"{side}_hip", f"{side}_knee", 3.4, "trousers", 0.9, 0.0) for side in ("left", "right")),
    *((f"{side}_knee", f"{side}_ankle", 3.1, "trousers", 0.8, 0.0) for side in ("left", "right")),
    *((f"{side}_wrist", f"{side}_wrist", 3.4, f"{side}_wrist", 1.0, 3.0) for side in ("left", "right")),
    *((f"{side}_ankle", f"{side}_ankle", 3.5, f"{side}_ankle", 1.0, 2.0) for side in ("left", "right")),
    ("head", "head", 6.2, "skin", 1.0, 1.0),
    # Of animals only: bodies.Kind says how thick.
    ("hips", "tail", 2.4, "shirt", 0.8, 0.0),
    ("head", "snout", 3.0, "skin", 0.8, -3.0),
)
SNOUT_PX = 6.5
TAIL_PX, TAIL_RISE_PX = 13.0, 5.0


def render_actor(actor: Actor, performance: Performance) -> Tensor:
    """The clip of an actor's performance: (T, 64, 64, 3) float32 in 0..1."""
    ground = render_ground(actor, performance.pan)
    return paint(ground, cover_of(actor, performance), colours_of(actor))


def cover_of(actor: Actor, performance: Performance) -> Tensor:
    """How much of each pixel each of an actor's PARTS is seen to cover: (T, P, 64, 64) in 0..1."""
    return cover_of_parts(joints_px(actor, performance), thick=thickness_of(actor.kind))


@cache
def thickness_of(kind: str) -> Tensor:
    """How much thicker than PARTS says those of a kind of body are, 0 where it has none: (P,)."""
    trunk, arms, legs, head, tail = KINDS[kind].thick
    own = {"chest hips": trunk, "left_hip right_hip": trunk, "head head": head, "hips tail": tail, "head snout": tail}
    of_arms = ("shoulder", "elbow", "wrist")
    return torch.tensor(
        [own.get(f"{start} {end}", arms if start.endswith(of_arms) else legs) for start, end, *_ in PARTS]
    )


def paint(ground: Tensor, shares: Tensor, colours: Tensor) -> Tensor:
    """Parts that cover shares (T, P, 64, 64) of the pixels, in their colours (P, 3), before a ground that broadcasts to
    (T, 64, 64, 3)."""
    return ground * (1 - shares.sum(1))[..., None] + torch.einsum("tphw,pc->thwc", shares, colours)


def floor_below(edge: float | Tensor) -> Tensor:
    """How much of each row of pixels is floor, 0..1, whose far edge lies `edge` px below the top: (..., 64)."""
    return (0.5 + (torch.arange(FRAME_PX) + 0.5 - edge) / EDGE_PX).clamp(0, 1)


def render_ground(actor: Actor, pan: Tensor) -> Tensor:
    """The background alone, the camera `pan` (T,) px to the right: (T, 64, 64, 3) float32 in 0..1."""
    centres = torch.arange(FRAME_PX) + 0.5
    x, y = centres[None, None, :] + pan[:, None, None], centres[None, :, None]
    wave = sum(torch.sin(2 * torch.pi * (u * x + v * y + phase)) for u, v, phase in actor.waves)
    floor = floor_below(actor.ground - FLOOR_RISE_PX)[None, :, None, None]
    tone = torch.tensor(TONES[actor.tone]) * (1 - (1 - FLOOR_SHADE) * floor)
    return tone + WAVE_CONTRAST * wave[..., None]


def colours_of(actor: Actor, ends: Mapping[str, Sequence[float]] = MARKERS) -> Tensor:
    """The colour of each of PARTS, (P, 3) in 0..1; `ends` are those of hands and feet, by joint."""
    own = {"shirt": SHIRTS[actor.shirt], "trousers": TROUSERS[actor.trousers], "skin": SKINS[actor.skin]} | dict(ends)
    return torch.tensor([[channel * light for channel in own[name]] for _, _, _, name, light, _ in PARTS])


def cover_of_parts(joints: Tensor, zoom: Tensor | None = None, thick: Tensor | None = None) -> Tensor:
    """How much of each pixel each of PARTS is seen to cover: (T, P, 64, 64) in 0..1, of joints (T, 13, 3) in px.

    zoom (T,) and thick (P,), a person's if not given, say how much thicker than PARTS says they are, in a frame and
    each.
    """
    ends = _ends(joints)
    thick = thickness_of(PERSON) if thick is None else thick
    radius = (torch.tensor([part[2] for part in PARTS]) * thick)[None]
    if zoom is not None:
        radius = radius * zoom[:, None]
    near = ends[..., 2].mean(1) + torch.tensor([part[5] for part in PARTS])
    start, along = ends[:, 0, :, :2], ends[:, 1, :, :2] - ends[:, 0, :, :2]
    length = along.square().sum(-1).clamp(min=1e-6)
    centres = torch.arange(FRAME_PX) + 0.5
    # Pixel minus start, apart in x and y: small tables, no grid of both until they meet.
    dx, dy = centres - start[..., :1], centres - start[..., 1:]
    share = (dx * along[..., :1])[..., None, :] + (dy * along[..., 1:])[..., :, None]
    share.div_(length[..., None, None]).clamp_(0, 1)
    off_x = dx[..., None, :] - share * along[..., 0, None, None]
    off_y = dy[..., :, None] - share.mul_(along[..., 1, None, None])
    distance = off_x.square_().add_(off_y.square_()).sqrt_()
    cover = distance.neg_().add_(radius[..., None, None]).div_(EDGE_PX).add_(0.5).clamp_(0, 1)
    cover *= (thick > 0)[:, None, None]
    order = near.argsort(1, descending=True)
    rows = torch.arange(len(joints))[:, None]
    sorted_cover = cover[rows, order]
    free = torch.cumprod(1 - sorted_cover, 1)
    sorted_cover[:, 1:] *= free[:, :-1]
    shares = torch.empty_like(cover)
    shares[rows, order] = sorted_cover
    return shares


def _ends(joints: Tensor) -> Tensor:
    place = {name: joints[:, number] for number, name in enumerate(JOINTS)}
    place["chest"] = (place["left_shoulder"] + place["right_shoulder"]) / 2
    place["hips"] = (place["left_hip"] + place["right_hip"]) / 2
    level = torch.tensor([1.0, 0.0, 1.0])
    ahead = torch.nn.functional.normalize((place["head"] - place["hips"]) * level, dim=-1)
    place["snout"] = place["head"] + SNOUT_PX * ahead
    back = torch.nn.functional.normalize(place["hips"] - place["chest"], dim=-1)
    place["tail"] = place["hips"] + TAIL_PX * back - TAIL_RISE_PX * torch.tensor([0.0, 1.0, 0.0])
    return torch.stack([torch.stack([place[part[end]] for part in PARTS], 1) for end in (0, 1)], 1)


def actor_mask(actor: Actor, performance: Performance, margin_px: float = 2.0) -> Tensor:
    """Where the person is, with a margin around: bool (T, 64, 64)."""
    covered = cover_of(actor, performance).sum(1, keepdim=True)
    reach = 2 * round(margin_px) + 1
    return torch.nn.functional.max_pool2d(covered, reach, 1, reach // 2)[:, 0] > 0.3


def draw_actor_poses(actor: Actor, performance: Performance) -> Tensor:
    """The driving poses as this world's base takes them: (T, 64, 64, 3) float32 in 0..1."""
    return draw_poses(poses_of(actor, performance), look=POSE_LOOK)
