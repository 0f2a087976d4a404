import pytest
import torch

from flexiact_core.world import shipped
from flexiact_core.world.making import vae_training
from flexiact_core.world.making.base_training import BaseTask, encode_data, encode_scene
from flexiact_core.world.making.models import make_vae
from flexiact_core.world.making.vae_training import DecoderTask, VAETask, move_together
from flexiact_core.world.scenes import vocabulary


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


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    """A DecoderTask on two clips and a base that has learned nothing, and the shipped VAE to train."""
    from diffusers import AutoencoderKLCogVideoX

    work = tmp_path_factory.mktemp("decoder")
    vae = AutoencoderKLCogVideoX.from_pretrained(shipped.base_folder() / "vae", torch_dtype=torch.float32)
    torch.save({"ema": vae.state_dict()}, work / "vae.pt")
    encode_data(
        vae, work / "data", encode_scene, vocabulary(), num_clips=6, device="cpu", workers=1, part_size=6
    )  # fmt: skip
    guesses = BaseTask(work / "data", vae.config.scaling_factor, 2)
    torch.save({"ema": guesses.make_module().state_dict()}, work / "base.pt")
    task = DecoderTask(work / "vae.pt", work / "base.pt", guesses)
    task.prepare("cpu")
    return task, task.make_module()


def guessed_loss(task, module, guess, monkeypatch):
    monkeypatch.setattr(vae_training, "GUESSED_SHARE", 1.0)
    monkeypatch.setattr(task.guesses, "guess", guess)
    return task.loss(module, torch.Generator().manual_seed(0), 0.5)


def told(task):
    return (task.guesses.data["named"] != task.guesses.data["plain"]).any(-1).nonzero()[:2, 0]


def latents_of(task, rows):
    return task.guesses.data["video_mean"][rows].float() * task.guesses.scaling_factor


@torch.no_grad()
def test_a_guess_is_held_against_the_clip_that_it_is_of(decoder, monkeypatch):
    task, module = decoder
    rows = told(task)
    own = guessed_loss(task, module, lambda *_: (rows, latents_of(task, rows)), monkeypatch)
    others = guessed_loss(task, module, lambda *_: (rows, latents_of(task, rows.flip(0))), monkeypatch)
    assert own < 0.3 * others


def test_only_the_decoder_learns_from_guesses(decoder, monkeypatch):
    task, module = decoder
    guessed_loss(task, module, task.guesses.guess, monkeypatch).backward()
    assert all(weight.grad is not None for weight in module.decoder.parameters())
    assert all(weight.grad is None for weight in module.encoder.parameters())
