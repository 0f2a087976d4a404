"""Poses of a driving video laid onto the person of a picture.

Both ways work on one canvas, that of the video to be made: the reference pose is on it already.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from ..errors import SettingError
from .people import choose_person
from .sequence import PoseSequence, check_poses, join_frames, scale_to_cover, take_frames, to_layout, with_points
from .skeletons import BODY, FACE, FOOT, HAND_LEFT, HAND_RIGHT, LIMBS, WHOLEBODY
from .timing import Missing, count_missing, fill_missing, fit_length, resample_poses, smooth_poses

Method = Literal["release", "proportions", "none"]

# Joints that the release fits: no arms below the shoulders.
FIT_JOINTS = (0, 1, 2, 5, *range(8, 18))
NOSE, NECK, SHOULDERS, HIPS, WRISTS, ANKLES = 0, 1, (2, 5), (8, 11), (4, 7), (10, 13)

# A bone gets this many times the clip's scale, at the least and the most.
BONE_RATIOS = (0.5, 2.0)
# Scales beyond this, or its inverse, are told of.
FAR_SCALE = 4.0
# A height that the joints must span for a fit, in parts of the canvas.
LEAST_SPAN = 0.01


@dataclass(frozen=True)
class Affine:
    """y = scale * x + shift for x and y, both as parts of their canvas's width and height; note says what was odd."""

    scale: tuple[float, float]
    shift: tuple[float, float]
    note: str = ""


def align_poses(
    driving: PoseSequence,
    reference: PoseSequence | None,
    width_px: int,
    height_px: int,
    *,
    method: Method = "release",
    person: str | int = "largest",
    missing: Missing = "hold",
    smooth: float = 0.0,
    fps: float = 16.0,
    num_frames: int = 0,
    reference_first: bool = True,
    min_score: float = 0.3,
) -> tuple[PoseSequence, str]:
    """Driving poses on a canvas of width_px x height_px that fit the reference's person, and a note on what was done.

    The chosen person's poses are brought to `fps`, gaps are filled, jitter is smoothed (standard deviation in frames),
    then they are aligned: `release` by one scale and shift for the clip, as DynamiCtrl does; `proportions` keeps the
    angles of the driving limbs and the bone lengths of the reference; `none`, and without a reference, scales the
    canvas to cover the new one. With reference_first the picture's own pose comes first, as in DynamiCtrl, and the
    driving poses follow it. num_frames 0 is all of them, else poses are cut, or the last one is held.
    Raises SettingError for unknown choices, ShapeError if nobody is in the driving poses.
    """
    if method not in ("release", "proportions", "none"):
        raise SettingError(f"method '{method}': choose release, proportions or none.")
    chosen = choose_person(check_poses(to_layout(driving, WHOLEBODY), "driving poses"), person)
    gaps = count_missing(check_poses(chosen, "driving poses"))
    chosen = smooth_poses(fill_missing(resample_poses(chosen, fps), missing), smooth)
    notes = [f"nobody in {gaps} of {driving.num_frames} frames ({missing})"] if gaps else []
    reference = _on_canvas(reference, width_px, height_px)
    if reference is None and method != "none":
        notes.append("no person in the picture: scaled to cover, not aligned")
    if reference is None or method == "none":
        aligned, note = scale_to_cover(chosen, width_px, height_px), ""
    elif method == "release":
        affine = fit_release(reference, chosen, min_score)
        aligned, note = apply_affine(chosen, affine, width_px, height_px), affine.note
    else:
        aligned, note = fit_proportions(reference, chosen, min_score)
    if reference is not None and reference_first and method != "none":
        aligned = join_frames(take_frames(reference, torch.tensor([0])), aligned)
    notes += [note] if note else []
    return fit_length(aligned, num_frames) if num_frames else aligned, "; ".join(notes)


def fit_release(reference: PoseSequence, driving: PoseSequence, min_score: float = 0.3) -> Affine:
    """The release's one scale and shift for a clip, from canvas parts of `driving` to those of `reference`.

    The scale is the slope of all heights against the reference's, by least squares; one for both directions. Fitted
    are the reference's seen joints, in driving frames with exactly one person, whatever the driving scores are; only
    joints that have no place at all are left out. Sideways the means meet. Upwards the driving NOSE of the first frame,
    of its first person, meets the first joint that is SEEN of the reference: not the same joint where its nose is
    hidden; that is how the release's videos were made.
    Where that has no answer (fewer than two joints, all at one height, or a mirrored slope) a smaller fit or none is
    taken, and the note says so.
    Source: DynamiCtrl, dwpose/preprocess.py.
    """
    target = _one(reference, 0)
    ids = [joint for joint in FIT_JOINTS if target.scores[joint] > max(min_score, 0)]
    single = (driving.present().sum(1) == 1).nonzero()[:, 0]
    frames = single if len(single) else driving.present().any(1).nonzero()[:, 0]
    fits = [_one(driving, int(frame)) for frame in frames]
    if not ids or not fits:
        return _cover(reference, driving, "no joint to align by: scaled to cover")
    places = torch.stack([fit.places[ids] for fit in fits])
    known = torch.stack([fit.known[ids] for fit in fits])
    wanted = target.places[ids].expand_as(places)
    here, there = places[known], wanted[known]
    slope, note = _slope(here, there, target, fits[0])
    if slope is None:
        return _cover(reference, driving, note)
    (width, height), (from_width, from_height) = reference.canvas, driving.canvas
    scale_x = slope / (from_height / from_width * (width / height))
    shift_x = float((there[:, 0] - scale_x * here[:, 0]).mean())
    first = _one(driving, int(driving.present().any(1).nonzero()[0]))
    # A nose without any place cannot be matched: then the reference's own first joint is.
    anchor = NOSE if first.known[NOSE] else ids[0]
    shift_y = float(target.places[ids[0], 1] - slope * first.places[anchor, 1])
    if not 1 / FAR_SCALE <= slope * height / from_height <= FAR_SCALE:
        note = f"people differ in size {slope * height / from_height:.2g} times"
    return Affine((scale_x, slope), (shift_x, shift_y), note)


def apply_affine(poses: PoseSequence, affine: Affine, width_px: int, height_px: int) -> PoseSequence:
    """All points of all people scaled and shifted, on the new canvas."""
    double = torch.float64
    canvas, wanted = torch.tensor(poses.canvas, dtype=double), torch.tensor([width_px, height_px], dtype=double)
    scale, shift = torch.tensor(affine.scale, dtype=double), torch.tensor(affine.shift, dtype=double)
    points = (poses.points.double() / canvas * scale + shift) * wanted
    return replace(poses, points=points.to(poses.points.dtype), canvas=(width_px, height_px))


def fit_proportions(reference: PoseSequence, driving: PoseSequence, min_score: float = 0.3) -> tuple[PoseSequence, str]:
    """The driving poses with the reference's bone lengths, on its canvas, and a note.

    Limbs keep the driving angles in every frame. One scale holds for the whole clip, the middle one of all bones'
    ratios; each bone then differs from it by 0.5 to 2 times. A pair of limbs counts as its longer one, since a bone
    that points at the camera looks short; of the clip the longest look counts (its 0.9 quantile). The neck, or the
    middle of the hips, starts where the reference's is and moves as in the driving video, by the clip's scale. Hands,
    feet and face go with their wrist, ankle and nose. Bones that either does not show keep the clip's scale.
    """
    target, first = _one(reference, 0), int(driving.present().any(1).nonzero()[0])
    scale, ratios = _bone_ratios(reference, driving, min_score)
    if scale is None:
        return apply_affine(driving, _cover(reference, driving), *reference.canvas), "no bone seen in both: not aligned"
    root, start = _roots(target, _one(driving, first))
    (width, height), canvas = reference.canvas, torch.tensor(driving.canvas)
    wanted = torch.tensor(reference.canvas)
    moved = (driving.points.double() - start * canvas) * scale + root * wanted
    points = moved.clone()
    known = driving.scores > 0
    for (parent, child), ratio in zip(LIMBS, ratios, strict=True):
        both = (known[..., parent] & known[..., child]).unsqueeze(-1)
        bone = moved[..., child, :] - moved[..., parent, :]
        points[..., child, :] = torch.where(both, points[..., parent, :] + bone * ratio, moved[..., child, :])
    for part, joints in ((FACE, (NOSE,)), (FOOT, ANKLES), (HAND_RIGHT, WRISTS), (HAND_LEFT, WRISTS)):
        points[..., part, :] = moved[..., part, :] + _step_of_nearest(points, moved, known, part, joints)
    note = f"people differ in size {scale:.2g} times" if not 1 / FAR_SCALE <= scale <= FAR_SCALE else ""
    return replace(driving, points=points.to(driving.points.dtype), canvas=(width, height)), note


@dataclass(frozen=True, eq=False)
class _One:
    """The first person of a frame: places (18, 2) in parts of the canvas, scores, and whether a place is known (18)."""

    places: Tensor
    scores: Tensor
    known: Tensor


def _one(poses: PoseSequence, frame: int) -> _One:
    present = poses.present()[frame]
    person = int(present.float().argmax())
    places = poses.points[frame, person, BODY].double()
    scores = poses.scores[frame, person, BODY]
    # What a detector only guessed has a low score and a place; what it gave no place for is all 0.
    known = (scores > 0) | (places != 0).any(-1)
    return _One(places / torch.tensor(poses.canvas, dtype=torch.float64), scores, known)


def _on_canvas(reference: PoseSequence | None, width_px: int, height_px: int) -> PoseSequence | None:
    if reference is None or not reference.present().any():
        return None
    first = reference.present().any(1).nonzero()[0]
    chosen = choose_person(take_frames(to_layout(reference, WHOLEBODY), first), "largest")
    return scale_to_cover(chosen, width_px, height_px)


def _cover(reference: PoseSequence, driving: PoseSequence, note: str = "") -> Affine:
    """scale_to_cover() said as parts of both canvases."""
    (width, height), (from_width, from_height) = reference.canvas, driving.canvas
    scale = max(width / from_width, height / from_height)
    along = (scale * from_width / width, scale * from_height / height)
    return Affine(along, ((1 - along[0]) / 2, (1 - along[1]) / 2), note)


def _slope(here: Tensor, there: Tensor, target: _One, first: _One) -> tuple[float | None, str]:
    """The least-squares slope of heights; by trunk or not at all where that has no answer."""
    heights = here[:, 1]
    if len(heights) >= 2 and heights.max() - heights.min() >= LEAST_SPAN:
        centred = heights - heights.mean()
        slope = float((centred * (there[:, 1] - there[:, 1].mean())).sum() / (centred**2).sum())
        if slope > 0:
            return slope, ""
        return None, "the picture's person is upside down to the driving one: scaled to cover"
    trunks = [_trunk(one) for one in (target, first)]
    if None not in trunks and trunks[1] >= LEAST_SPAN and trunks[0] > 0:
        return trunks[0] / trunks[1], "too few joints to fit: scaled by shoulders and hips"
    return None, "too few joints, or all at one height: scaled to cover"


def _trunk(one: _One) -> float | None:
    """The distance from the middle of the shoulders to that of the hips; None if they are not all known."""
    ids = [*SHOULDERS, *HIPS]
    if not one.known[ids].all():
        return None
    return float((one.places[list(SHOULDERS)].mean(0) - one.places[list(HIPS)].mean(0)).norm())


def _bone_ratios(reference: PoseSequence, driving: PoseSequence, min_score: float) -> tuple[float | None, list[float]]:
    """The clip's scale in pixels, and for each of LIMBS what a bone differs from it."""
    lengths = []
    for poses in (with_points(reference, reference.points[:1], reference.scores[:1]), driving):
        points, seen = poses.points[:, :1].double(), poses.seen(min_score)[:, :1]
        bones = torch.stack([(points[..., b, :] - points[..., a, :]).norm(dim=-1) for a, b in LIMBS], -1)
        both = torch.stack([seen[..., a] & seen[..., b] for a, b in LIMBS], -1)
        longest = torch.where(both, bones, torch.nan).flatten(0, 1).nanquantile(0.9, dim=0)
        lengths.append(_longer_of_pairs(longest))
    ratios = lengths[0] / lengths[1]
    usable = torch.isfinite(ratios) & (ratios > 0)
    if not usable.any():
        return None, []
    scale = float(ratios[usable].median())
    own = torch.where(usable, ratios / scale, 1.0).clamp(*BONE_RATIOS)
    return scale, own.tolist()


def _longer_of_pairs(lengths: Tensor) -> Tensor:
    """Lengths of LIMBS, each the longer of itself and the same bone of the other side."""
    other = {2: 5, 3: 6, 4: 7, 8: 11, 9: 12, 10: 13, 14: 15, 16: 17}
    other |= {right: left for left, right in other.items()}
    index = {limb: number for number, limb in enumerate(LIMBS)}
    mirrored = [index[(other.get(a, a), other.get(b, b))] for a, b in LIMBS]
    return torch.fmax(lengths, lengths[mirrored])


def _roots(target: _One, first: _One) -> tuple[Tensor, Tensor]:
    """Where the tree of bones hangs, in the reference and in the first driving frame, as parts of their canvases."""
    for joints in ((NECK,), HIPS, SHOULDERS, (NOSE,)):
        ids = list(joints)
        if (target.scores[ids] > 0).all() and (first.scores[ids] > 0).all():
            return target.places[ids].mean(0), first.places[ids].mean(0)
    both = (target.scores > 0) & (first.scores > 0)
    return target.places[both].mean(0), first.places[both].mean(0)


def _step_of_nearest(points: Tensor, moved: Tensor, known: Tensor, part: slice, joints: tuple[int, ...]) -> Tensor:
    """How far (T, P, 1, 2) the joint that a part hangs on was moved by its bones; the nearest of several."""
    weight = known[..., part].to(moved).unsqueeze(-1)
    centre = (moved[..., part, :] * weight).sum(-2, keepdim=True) / weight.sum(-2, keepdim=True).clamp(min=1)
    ids = list(joints)
    distance = (moved[..., ids, :] - centre).norm(dim=-1)
    nearest = torch.where(known[..., ids], distance, torch.inf).argmin(-1)
    step = (points - moved)[..., ids, :].gather(-2, nearest[..., None, None].expand(*nearest.shape, 1, 2))
    return torch.where(known[..., ids].any(-1)[..., None, None], step, 0.0)
