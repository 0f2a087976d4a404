import pytest
import torch

from flexiact_core.world.making.base_training import MOVING_WEIGHT, moving_weight


def test_cells_that_move_count_more_and_the_mean_is_one():
    video = torch.zeros(1, 5, 16, 8, 8)
    video[:, 1:, :, 2, 3] = 2.0
    weight = moving_weight(video)
    assert weight.shape == (1, 5, 1, 8, 8)
    assert weight.mean().item() == pytest.approx(1.0)
    moving, still = weight[0, 2, 0, 2, 3], weight[0, 2, 0, 0, 0]
    assert 0.9 * MOVING_WEIGHT < moving / still < MOVING_WEIGHT
    assert weight[0, 0, 0, 2, 3] == still


def test_a_still_clip_counts_the_same_everywhere():
    torch.testing.assert_close(moving_weight(torch.ones(2, 5, 16, 8, 8)), torch.ones(2, 5, 1, 8, 8))
