"""What the small people's VAE is trained on."""

import numpy as np
import pytest
import torch

from flexiact_core.world.making.actor_vae_training import ActorVAETask, actor_latent_scale, measure_actor_vae
from flexiact_core.world.making.models import make_vae


def batches(progress):
    task = ActorVAETask()
    task.prepare("cpu")
    return [task._batch(np.random.default_rng(seed), progress) for seed in range(12)]


@pytest.mark.parametrize("progress", [0.0, 0.9])
def test_a_batch_is_pictures_stretches_or_crops_of_whole_latent_pairs(progress):
    sizes = set()
    for pixels, weight in batches(progress):
        assert pixels.shape[0] == weight.shape[0] and pixels.shape[2:] == weight.shape[2:]
        assert -1 <= pixels.min() and pixels.max() <= 1
        frames = pixels.shape[2]
        assert frames == 1 or (frames - 5) % 8 == 0
        # People count more than what is around them.
        assert weight.max() > weight.min()
        sizes.add((frames, pixels.shape[-1]))
    assert sizes == {(1, 64), (13, 64), (5, 32)}


def test_the_measures_are_of_clips_people_and_drawings():
    torch.manual_seed(0)
    vae = make_vae().eval()
    measured = measure_actor_vae(vae, num_clips=1)
    assert set(measured) == {"psnr_db", "person_psnr_db", "drawing_psnr_db"}
    assert all(0 < value < 40 for value in measured.values())
    assert actor_latent_scale(vae, num_clips=1) > 0
