"""How near a video is to the one it should be."""

from __future__ import annotations

import numpy as np


def psnr_db(error: float) -> float:
    """Decibel of a mean squared error of values in 0..1 against their full range; infinite for none."""
    return float("inf") if error == 0 else -10 * float(np.log10(error))


def video_psnr_db(frames: np.ndarray, exact: np.ndarray) -> float:
    """Decibel of frames in 0..1 against those they should be, of the same shape; infinite for equal ones."""
    return psnr_db(float(np.square(frames - exact).mean()))
