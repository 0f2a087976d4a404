"""How alike the motions of two videos are, read off points that were followed through them.

Shape letters: T frames, N and M points of the reference and of the result.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import ShapeError
from .tracks import Tracks

# A point that moves less than this from frame to frame rests; a share of the frame's diagonal, 0.6 px of 720 x 480.
STILL = 0.07 / 100
# A point counts if it is seen through this share of the steps, and a pair if both are seen through half of that.
SEEN_SHARE = 0.5
# Points of the reference that are compared with all others at once; a bound on memory, not on their number.
ROWS_AT_ONCE = 1024


def motion_fidelity(reference: Tracks, result: Tracks, still: float = STILL) -> float:
    """How alike the motions are, -1..1: the mean, both ways, of each point's best correlation with one of the other's.

    The correlation of two points is the mean over the steps of the cosine of their velocities. So only directions
    count: neither places, nor sizes, nor speeds. Where neither moves the cosine is 0/0: two points that rest agree (1),
    one that rests and one that moves do not (0). `still` is the share of the diagonal that a resting point may move a
    step. Steps where one of the two is not seen are left out.
    Raises ShapeError if the frames differ in number, or no point is seen for long enough.
    Source: Yatim et al., Space-Time Diffusion Features for Zero-Shot Text-Driven Motion Transfer, 2024, section 5;
    theirs is the sum of both ways, so twice this one.
    """
    best_of_reference, best_of_result = _best_matches(_velocities(reference, still), _velocities(result, still))
    return float(best_of_reference.mean() + best_of_result.mean()) / 2


def moving_fidelity(reference: Tracks, result: Tracks, still: float = STILL) -> float:
    """As motion_fidelity(), of the points alone that move in at least half of their steps; 0 for a still result.

    A large background at rest agrees with any other, and hides a subject that does not move. 1 if neither moves.
    """
    first, second = _velocities(reference, still), _velocities(result, still)
    moving = [(part[1].sum(0) * 2 <= part[2].sum(0)) for part in (first, second)]
    if not moving[0].any() and not moving[1].any():
        return 1.0
    best = _best_matches(first, second)
    means = [float(values[which].mean()) if which.any() else 0.0 for values, which in zip(best, moving, strict=True)]
    return sum(means) / 2


def _velocities(tracks: Tracks, still: float) -> tuple[Tensor, Tensor, Tensor]:
    """Directions (T - 1, N, 2), which rest and which are seen (T - 1, N), of the points that are seen long enough."""
    if tracks.num_frames < 2:
        raise ShapeError("motion fidelity: at least 2 frames are needed; one shows no motion.")
    seen = tracks.seen[1:] & tracks.seen[:-1]
    kept = seen.float().mean(0) >= SEEN_SHARE
    if not kept.any():
        raise ShapeError("motion fidelity: no point is seen through half of the video. Use a clip without cuts.")
    steps, seen = (tracks.paths[1:] - tracks.paths[:-1])[:, kept].float(), seen[:, kept]
    speed = steps.norm(dim=-1, keepdim=True)
    rests = speed <= still * (tracks.width_px**2 + tracks.height_px**2) ** 0.5
    directions = torch.where(rests, 0.0, steps / speed.clamp(min=1e-12)) * seen[..., None]
    return directions, (rests[..., 0] & seen).float(), seen.float()


def _best_matches(first: tuple[Tensor, ...], second: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """The best correlation of each point (N,) of the first, and (M,) of the second, with any of the other's."""
    if len(first[0]) != len(second[0]):
        raise ShapeError(
            f"motion fidelity: {len(first[0]) + 1} frames in the reference, {len(second[0]) + 1} in the result. "
            "Compare stretches of one length, at one number of frames per second."
        )
    rows = []
    for start in range(0, first[0].shape[1], ROWS_AT_ONCE):
        part = [values[:, start : start + ROWS_AT_ONCE] for values in first]
        rows.append(_correlations(part, second))
    correlations = torch.cat(rows)
    return correlations.amax(1), correlations.amax(0)


def _correlations(first: list[Tensor], second: tuple[Tensor, ...]) -> Tensor:
    (directions_1, rests_1, seen_1), (directions_2, rests_2, seen_2) = first, second
    shared = seen_1.T @ seen_2
    agree = torch.einsum("tnc,tmc->nm", directions_1, directions_2) + rests_1.T @ rests_2
    # Two points that were hardly seen together say nothing of each other: none is a match.
    return torch.where(shared >= len(seen_1) * SEEN_SHARE / 2, agree / shared.clamp(min=1), -1.0)
