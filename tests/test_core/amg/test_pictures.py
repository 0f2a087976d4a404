import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from flexiact_core.amg.pictures import (
    check_avatar_size,
    decode_latents,
    draw_latents,
    encode_frames,
    fit_avatar,
    frames_to_clip,
    preview_frame,
    stands_on_black,
)
from flexiact_core.errors import SettingError, ShapeError

CPU = torch.device("cpu")


@pytest.fixture
def frames():
    return torch.rand(3, 40, 48, 3, generator=torch.Generator().manual_seed(0))


def test_the_releases_fit_is_the_middle_500_rows_then_boxes_then_the_centre():
    picture = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), np.uint8)
    middle = Image.fromarray(picture[110:610]).resize((655, 256), Image.Resampling.BOX)
    expected = np.asarray(middle.crop((199, 0, 455, 256)))
    found = fit_avatar(torch.from_numpy(picture)[None] / 255, 256, 256, "release")
    assert_close(found[0], torch.from_numpy(expected.copy()) / 255)


def test_frames_of_the_size_stay_as_they_are_in_both_fits(frames):
    assert torch.equal(fit_avatar(frames, 48, 40, "cover"), frames)
    assert_close(fit_avatar(frames, 48, 40, "release"), frames, atol=1 / 255, rtol=0)
    with pytest.raises(SettingError, match="fit 'stretch': choose one of cover, release"):
        fit_avatar(frames, 48, 40, "stretch")


def test_transparent_avatars_stand_on_black(frames):
    opacity = torch.zeros(3, 40, 48, 1)
    opacity[:, :20] = 1
    fitted = fit_avatar(torch.cat([frames, opacity], -1), 48, 40)
    assert torch.equal(fitted[:, :20], frames[:, :20]) and not fitted[:, 20:].any()


def test_no_frame_is_refused(frames):
    with pytest.raises(ShapeError, match="avatar: no frame in it"):
        fit_avatar(frames[:0], 48, 40)


@pytest.mark.parametrize(("size", "nearest"), [(100, 128), (90, 64), (20, 64), (0, 64)])
def test_a_size_between_steps_is_refused_with_the_nearest(size, nearest):
    with pytest.raises(SettingError, match=f"width {size}: AMG works in steps of 64 pixels. Nearest: {nearest}."):
        check_avatar_size(size, 64, 64)
    check_avatar_size(128, 64, 64)


def test_a_bright_border_is_noticed(frames):
    black = torch.zeros(2, 32, 32, 3)
    black[:, 8:24, 8:24] = 0.9  # an avatar in the middle
    assert stands_on_black(black)
    black[:, :, -4:] = 0.9  # one that leaves the frame: two of eight sides' worth of border
    black[:, 10:, -4:] = 0
    assert stands_on_black(black)
    assert not stands_on_black(frames)


def test_latents_are_drawn_by_seed_around_the_means_and_scaled(small, frames):
    parameters = encode_frames(small.vae, frames, CPU)
    assert parameters.shape == (3, 8, 5, 6)
    mean, log_variance = parameters.chunk(2, 1)
    assert_close(draw_latents(parameters, 0.5, None), frames_to_clip(mean) * 0.5)
    drawn = [draw_latents(parameters, 0.5, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(1))
    assert_close(drawn[0], frames_to_clip(mean + log_variance.mul(0.5).exp() * noise) * 0.5)


def test_encoding_and_decoding_in_chunks_is_frame_by_frame(small):
    frames = torch.rand(11, 16, 16, 3)
    parameters = encode_frames(small.vae, frames, CPU)
    assert_close(parameters[9:10], encode_frames(small.vae, frames[9:10], CPU), atol=1e-5, rtol=0)
    latents = torch.randn(1, 4, 11, 2, 2)
    decoded = decode_latents(small.vae, latents, CPU)
    assert decoded.shape == (11, 16, 16, 3) and decoded.min() >= 0 and decoded.max() <= 1
    with torch.no_grad():
        ninth = small.vae.decode(latents[:, :, 9] / small.vae.config.scaling_factor).sample
    assert_close(decoded[9], (ninth[0] / 2 + 0.5).clamp(0, 1).permute(1, 2, 0), atol=1e-5, rtol=0)


def test_a_preview_is_a_picture_of_the_frame_asked_for():
    latents = torch.zeros(1, 4, 3, 2, 2)
    latents[:, 0, 2] = 1.0
    assert_close(preview_frame(latents, 0), torch.full((2, 2, 3), 0.5))
    assert (preview_frame(latents, 2) > 0.5).all()


def test_latents_of_another_layout_are_refused():
    with pytest.raises(ShapeError, match="latents: frames x 4 x height x width expected"):
        frames_to_clip(torch.zeros(3, 16, 2, 2))


def test_each_layer_of_each_few_frames_is_told_of_before_it_runs(small):
    frames, latents = torch.rand(11, 16, 16, 3), torch.randn(1, 4, 11, 2, 2)
    for call in (
        lambda on_part: encode_frames(small.vae, frames, CPU, on_part),
        lambda on_part: decode_latents(small.vae, latents, CPU, on_part),
    ):
        parts = []
        watched = call(lambda done, total, parts=parts: parts.append((done, total)))
        # Eleven frames are two chunks.
        assert parts == [(index, len(parts)) for index in range(len(parts))] and len(parts) >= 4
        assert torch.equal(watched, call(None))
