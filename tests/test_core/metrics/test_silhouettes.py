"""How far outlines cover each other, counted by hand."""

import numpy as np

from flexiact_core.metrics.silhouettes import overlap


def test_the_overlap_is_what_both_cover_of_what_either_does():
    made, true = np.zeros((2, 4, 4)), np.zeros((2, 4, 4))
    made[0, :2], true[0, 1:3] = 1, 1  # two rows each, one of them shared
    made[1, 0], true[1, 3] = 1, 1
    assert overlap(made, true).tolist() == [1 / 3, 0]
    assert overlap(made, made).tolist() == [1, 1]
    assert overlap(np.zeros((4, 4)), np.zeros((4, 4))) == 0
