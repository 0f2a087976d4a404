import torch

from flexiact_core.world.making.models import make_vae
from flexiact_core.world.making.vae_training import VAETask, move_together


def blob(size, frames=3):
    """A video (1, 1, T, size, size) of a soft spot a quarter of the picture to the right of the centre."""
    rows, columns = torch.meshgrid(*[(torch.arange(size) + 0.5) / size] * 2, indexing="ij")
    spot = torch.exp(-((rows - 0.5).square() + (columns - 0.75).square()) / 0.02)
    return spot.expand(1, 1, frames, size, size)


def place(video):
    """Where the light of a video is, in shares of the picture: (down, right)."""
    light = video[0, 0, 0]
    shares = (torch.arange(len(light)) + 0.5) / len(light)
    return torch.stack([(light.sum(1) * shares).sum(), (light.sum(0) * shares).sum()]) / light.sum()


def test_latents_and_pixels_are_moved_alike():
    for seed in range(5):
        latents, pixels = move_together(torch.Generator().manual_seed(seed), blob(16), blob(64, 9))
        assert latents.shape == (1, 1, 3, 16, 16) and pixels.shape == (1, 1, 9, 64, 64)
        torch.testing.assert_close(place(latents), place(pixels), rtol=0, atol=0.02)
    assert (place(pixels) - place(blob(64))).abs().max() > 0.01


def test_the_loss_of_a_fresh_vae_reaches_all_its_weights():
    task = VAETask(trained=True)
    task.prepare("cpu")
    vae = make_vae()
    task.loss(vae, torch.Generator().manual_seed(0), 0.5).backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in vae.parameters())
