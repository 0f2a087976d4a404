import numpy as np
import pytest

from flexiact_core.metrics.video import video_psnr_db


def test_psnr_is_counted_from_full_range():
    exact = np.full((2, 4, 4, 3), 0.5)
    assert video_psnr_db(exact, exact) == float("inf")
    assert video_psnr_db(exact + 0.1, exact) == pytest.approx(20)
    assert video_psnr_db(1 - exact * 0, exact * 0) == pytest.approx(0)
