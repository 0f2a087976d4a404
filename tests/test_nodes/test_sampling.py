"""What every sampler node does around the run itself."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

sampling = pytest.importorskip("flexiact_pack.nodes.sampling", reason="needs ComfyUI: run `make test`")

from flexiact_pack.nodes.host import encodings, memory, progress  # noqa: E402

from flexiact_core.cogvideox.acceleration import Acceleration  # noqa: E402
from flexiact_core.cogvideox.memory import decode_bytes, transformer_bytes  # noqa: E402
from flexiact_core.cogvideox.model import decode_latents  # noqa: E402
from flexiact_core.errors import SettingError, ShapeError  # noqa: E402
from flexiact_core.video import to_frames  # noqa: E402

# 9 frames of 64x64 pixels are 3 latent frames of 8x8.
LATENTS = (1, 3, 16, 8, 8)


@pytest.fixture
def latents():
    return torch.randn(LATENTS, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def bar(monkeypatch):
    """The steps that were shown, each with its preview."""
    shown = []
    monkeypatch.setattr(progress.Progress, "step", lambda self, done, preview=None: shown.append((done, preview)))
    return shown


@pytest.fixture
def picture():
    return torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(1))


def sample(model, picture, compute, **changes):
    settings = {"num_frames": 9, "steps": 2} | changes
    return sampling.sample_video(model, model.transformer, picture, ("a cat", ""), compute, **settings)


def test_the_run_gets_posterior_embeddings_and_device_and_its_latents_become_frames(small_model, picture, latents, bar):
    given = {}

    def compute(posterior, *embeds, device, on_step):
        given.update(posterior=posterior, embeds=embeds, device=device)
        return latents

    frames = sample(small_model, picture, compute)
    assert_close(given["posterior"].mean, encodings.encode_image(small_model, picture).mean)
    for embed, prompt in zip(given["embeds"], ("a cat", ""), strict=True):
        assert_close(embed, encodings.encode_prompt(small_model, prompt))
    assert given["device"] == small_model.transformer.load_device
    assert_close(frames, to_frames(decode_latents(small_model.base.vae, latents, torch.device("cpu"))))
    assert frames.shape == (9, 64, 64, 3)


def test_each_step_is_shown_with_a_preview_of_the_middle_frame(small_model, picture, latents, bar):
    def compute(*_, device, on_step):
        for index in range(2):
            on_step(index, latents)
        on_step(2, torch.where(torch.arange(3)[:, None, None, None] == 1, latents, 0))
        return latents

    sample(small_model, picture, compute)
    assert [done for done, _ in bar] == [1, 2, 3]
    assert bar[0][1].shape == (8, 8, 3)
    assert_close(bar[2][1], bar[0][1])


@pytest.mark.parametrize("step_cache", ["off", "taylor"])
def test_room_is_asked_for_the_steps_with_what_an_acceleration_holds_and_for_decoding(
    small_model, picture, latents, bar, monkeypatch, step_cache
):
    asked, on_device = [], memory.on_device

    def asking(patcher, num_bytes):
        asked.append((patcher, num_bytes))
        return on_device(patcher, num_bytes)

    sample(small_model, picture, lambda *_, **__: latents)
    monkeypatch.setattr(memory, "on_device", asking)
    acceleration = Acceleration(step_cache=step_cache)
    sample(small_model, picture, lambda *_, **__: latents, acceleration=acceleration)
    base = small_model.base
    assert asked == [
        (small_model.transformer, transformer_bytes(base, 3, 8, 8, 2, acceleration)),
        (small_model.vae, decode_bytes(base, 9, 64, 64)),
    ]


def test_a_picture_is_scaled_to_cover_and_cut_at_the_centre(small_model):
    wide = torch.zeros(1, 64, 192, 3)
    wide[:, :, 64:128] = 1
    fitted = sampling.fit_picture(small_model, wide, "image", 64, 64, 9)
    assert_close(fitted, torch.ones(1, 64, 64, 3))


@pytest.mark.parametrize(
    ("shape", "size", "error", "message"),
    [
        ((2, 64, 64, 3), (64, 64, 9), ShapeError, "^start: one picture expected, 2 found"),
        ((1, 64, 64, 3), (80, 64, 9), SettingError, "learned positions for 64x64 only"),
        ((1, 64, 64, 3), (64, 64, 25), SettingError, "learned positions for 17 frames"),
        ((1, 64, 64, 3), (64, 64, 10), SettingError, "num_frames 10"),
    ],
    ids=["batch", "size", "length", "odd length"],
)
def test_what_this_base_cannot_make_is_refused_with_the_inputs_name(small_model, shape, size, error, message):
    with pytest.raises(error, match=message):
        sampling.fit_picture(small_model, torch.rand(shape), "start", *size)


def test_what_the_mask_of_a_cut_out_picture_hides_is_white(small_model, tmp_path):
    """A PNG with transparent parts, as Load Image hands it on: picture and mask apart."""
    import numpy as np
    from comfy_api.latest import InputImpl
    from PIL import Image

    pixels = np.zeros((96, 160, 4), np.uint8)
    pixels[24:72, 40:120] = (255, 0, 0, 255)
    Image.fromarray(pixels).save(tmp_path / "cut_out.png")
    loaded = InputImpl.VideoFromFile(str(tmp_path / "cut_out.png")).get_components()
    image, mask = loaded.images[..., :3], 1 - loaded.alpha.squeeze(-1)
    fitted = sampling.fit_picture(small_model, image, "image", 64, 64, 9, mask)
    assert_close(fitted[0, 2, 2], torch.ones(3))
    assert_close(fitted[0, 32, 32], torch.tensor([1.0, 0.0, 0.0]), atol=0.02, rtol=0)
    # Load Image's mask of a picture without transparency.
    whole = sampling.fit_picture(small_model, image, "image", 64, 64, 9, torch.zeros(1, 64, 64))
    assert torch.equal(whole, sampling.fit_picture(small_model, image, "image", 64, 64, 9))


def test_at_cfg_1_the_negative_prompt_is_not_read(small_model, monkeypatch):
    from flexiact_core.cogvideox import model as core

    read = []
    encode = core.encode_prompt
    monkeypatch.setattr(core, "encode_prompt", lambda *args: read.append(args[2]) or encode(*args))
    for cfg, expected in ((1.0, ["one"]), (6.0, ["two", "not two"])):
        read.clear()
        for prompt in sampling.used_prompts(expected[0], "not two", cfg):
            encodings.encode_prompt(small_model, prompt)
        assert read == expected
