"""How far outlines cover each other."""

from __future__ import annotations

import numpy as np


def overlap(made: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Intersection over union of masks (..., H, W), 0..1 for each, (...); 0 for two empty ones, which show nothing."""
    made, true = np.asarray(made, dtype=bool), np.asarray(true, dtype=bool)
    both, either = (made & true).sum((-2, -1)), (made | true).sum((-2, -1))
    return both / np.maximum(either, 1)
