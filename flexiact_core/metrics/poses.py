"""How near predicted poses are to true ones, how much they vary, and how near two sets of them lie.

Shape letters: K variants, B clips, T poses, P numbers of a pose (x and y of each joint, in -1..1), N samples,
F features.
Errors are in pixels of the square that -1..1 spans.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import ShapeError


def pose_errors(made: Tensor, true: Tensor, side_px: float = 128) -> Tensor:
    """The mean distance of a joint from where it should be, in pixels, for each clip: (...) from (..., T, P) twice."""
    if made.shape[-2:] != true.shape[-2:]:
        raise ShapeError(f"poses: {tuple(true.shape[-2:])} expected, {tuple(made.shape[-2:])} found.")
    apart = (made - true).unflatten(-1, (-1, 2)).norm(dim=-1)
    return apart.mean((-2, -1)) * side_px / 2


def diversity(made: Tensor, side_px: float = 128) -> float:
    """The mean distance in pixels of two variants of a clip, from (K, B, T, P); 0 for a single variant."""
    if len(made) < 2:
        return 0.0
    pairs = torch.combinations(torch.arange(len(made)))
    return float(pose_errors(made[pairs[:, 0]], made[pairs[:, 1]], side_px).mean())


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """The Frechet distance of two normal distributions fitted to features (N, F) and (M, F).

    Raises ShapeError if either has fewer than 2 samples or the features differ in number.
    Source: Heusel et al., GANs Trained by a Two Time-Scale Update Rule, 2017, section 4.
    """
    if min(len(first), len(second)) < 2 or first.shape[1:] != second.shape[1:]:
        raise ShapeError(
            f"features: two sets of at least 2 samples of one width expected, {tuple(first.shape)} and "
            f"{tuple(second.shape)} found."
        )
    first, second = first.double(), second.double()
    apart = (first.mean(0) - second.mean(0)).square().sum()
    spread_1, spread_2 = first.T.cov(), second.T.cov()
    # The trace of the root of the product is that of the symmetric root1 @ cov2 @ root1.
    values, vectors = torch.linalg.eigh(spread_1)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    shared = torch.linalg.eigvalsh(root @ spread_2 @ root).clamp(min=0).sqrt().sum()
    return float(apart + spread_1.trace() + spread_2.trace() - 2 * shared)


def correct_keypoints(made: Tensor, true: Tensor, within: float, seen: Tensor | None = None) -> float:
    """PCK: the share, 0..1, of joints (..., J, 2) that lie within a distance of where they should; nan for no joint.

    `within` is in the joints' own unit; PCK@0.1 of a person's height is within = 0.1 * height. seen (..., J) tells
    which true joints are there; others do not count, and a joint that was not found (nan) is not correct.
    Raises ShapeError if the joints differ in number.
    Source: Yang and Ramanan, Articulated Human Detection with Flexible Mixtures of Parts, 2013, section 7.
    """
    if made.shape != true.shape:
        raise ShapeError(f"joints: {tuple(true.shape)} expected, {tuple(made.shape)} found.")
    near = (made - true).norm(dim=-1) <= within
    counted = torch.ones_like(near) if seen is None else seen
    return float(near[counted].float().mean())
