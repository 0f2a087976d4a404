from dataclasses import replace

import pytest
import torch

from flexiact_core.clips import ClipFormat
from flexiact_core.cogvideox import family as rows
from flexiact_core.cogvideox.family import COGVIDEOX_1_0, check_video_size, family_of
from flexiact_core.cogvideox.model import clip_format, rotary_positions
from flexiact_core.errors import FileError, SettingError

# A family as CogVideoX 1.5 is one: patches of two latent frames, positions not scaled.
IN_PAIRS = replace(COGVIDEOX_1_0, name="pairs", signature="pairs-i2v", fps=16, patch_size_t=2, grid=None, ofs=2.0)


@pytest.mark.parametrize("num_frames", [1, 9, 17, 49, 81])
def test_8k_plus_1_frames_pass(num_frames):
    assert COGVIDEOX_1_0.check_num_frames(num_frames) == num_frames


@pytest.mark.parametrize(
    ("num_frames", "nearest"), [(8, 9), (13, 9), (50, 49), (48, 49), (5, 1), (2, 1), (0, 1), (-3, 1), (14, 17)]
)
def test_other_frame_counts_are_refused_naming_the_nearest(num_frames, nearest):
    with pytest.raises(SettingError, match=rf"num_frames {num_frames}: .*Nearest: {nearest}\b"):
        COGVIDEOX_1_0.check_num_frames(num_frames)


@pytest.mark.parametrize("num_frames", [1, 9, 17])
def test_the_vae_returns_exactly_the_frames_that_pass(base, num_frames):
    from flexiact_core.cogvideox.model import decode_latents, encode_pixels

    cpu = torch.device("cpu")
    posterior = encode_pixels(base.vae, torch.zeros(1, 3, num_frames, 16, 16), cpu)
    assert posterior.mean.shape[1] == (num_frames - 1) // 4 + 1
    assert decode_latents(base.vae, posterior.mean, cpu).shape[2] == num_frames


def test_the_vae_returns_more_frames_for_a_4k_plus_1_count_that_is_refused(base):
    from flexiact_core.cogvideox.model import decode_latents, encode_pixels

    cpu = torch.device("cpu")
    posterior = encode_pixels(base.vae, torch.zeros(1, 3, 13, 16, 16), cpu)
    assert decode_latents(base.vae, posterior.mean, cpu).shape[2] > 13


def test_sizes_in_steps_of_16_pass():
    COGVIDEOX_1_0.check_size(720, 480)
    COGVIDEOX_1_0.check_size(16, 16)


@pytest.mark.parametrize(
    ("width", "height", "message"),
    [
        (721, 480, "width 721: .*16 pixels. Nearest: 720"),
        (720, 487, "height 487: .*Nearest: 480"),
        (8, 480, "width 8: .*Nearest: 16"),
        (720, 0, "height 0: .*Nearest: 16"),
        (-16, 480, "width -16: .*Nearest: 16"),
    ],
)
def test_other_sizes_are_refused_naming_the_nearest(width, height, message):
    with pytest.raises(SettingError, match=message):
        COGVIDEOX_1_0.check_size(width, height)


LEARNED = {
    "use_learned_positional_embeddings": True,
    "sample_width": 90,
    "sample_height": 60,
    "sample_frames": 49,
}


@pytest.mark.parametrize("num_frames", [1, 9, 49])
def test_learned_positions_take_their_own_size_and_no_more_frames(num_frames):
    check_video_size(LEARNED, 720, 480, num_frames)


@pytest.mark.parametrize(("width", "height"), [(480, 720), (736, 480), (720, 496), (16, 16)])
def test_learned_positions_refuse_other_sizes_naming_their_own(width, height):
    message = f"{width}x{height}: this base has learned positions for 720x480 only. Set width 720 and height 480"
    with pytest.raises(SettingError, match=message):
        check_video_size(LEARNED, width, height, 49)


def test_learned_positions_refuse_more_frames():
    with pytest.raises(SettingError, match="num_frames 57: .*positions for 49 frames. Set num_frames to 49 or less"):
        check_video_size(LEARNED, 720, 480, 57)


def test_rotary_positions_alone_take_any_size():
    check_video_size(LEARNED | {"use_learned_positional_embeddings": False}, 512, 768, 81)


@pytest.mark.parametrize(
    ("size", "message"),
    [((720, 480, 50), "num_frames 50: .*Nearest: 49"), ((721, 480, 49), "width 721: .*Nearest: 720")],
)
def test_a_video_size_is_checked_whatever_the_positions(size, message):
    for learned in (True, False):
        with pytest.raises(SettingError, match=message):
            check_video_size(LEARNED | {"use_learned_positional_embeddings": learned}, *size)


def test_a_family_is_told_by_its_patches(monkeypatch):
    assert family_of({"patch_size_t": None}) is family_of({}) is COGVIDEOX_1_0
    with pytest.raises(FileError, match="patches of 7 latent frames.*CogVideoX 1.0"):
        family_of({"patch_size_t": 7})
    monkeypatch.setattr(rows, "FAMILIES", (COGVIDEOX_1_0, IN_PAIRS))
    assert family_of({"patch_size_t": 2}) is IN_PAIRS


def test_a_base_learns_from_clips_of_its_familys_speed_and_lengths(base):
    assert clip_format(base) == ClipFormat(64, 64, 8, max_frames=17, min_frames=9, frame_multiple=8, frame_offset=1)


@pytest.mark.parametrize(("num_frames", "own", "padding"), [(1, 1, 1), (9, 3, 1), (13, 4, 0), (37, 10, 0), (81, 21, 1)])
def test_latent_frames_fill_whole_patches(num_frames, own, padding):
    assert COGVIDEOX_1_0.count_latent_frames(num_frames) == own
    assert COGVIDEOX_1_0.count_padding(num_frames) == 0
    assert IN_PAIRS.count_latent_frames(num_frames) == own + padding
    assert IN_PAIRS.count_padding(num_frames) == padding


def test_frames_of_another_rule_name_their_own_counts():
    eights_and_five = replace(IN_PAIRS, frame_offset=5)
    assert [n for n in range(1, 40) if _passes(eights_and_five, n)] == [5, 13, 21, 29, 37]
    with pytest.raises(SettingError, match=r"8k\+5 frames. Nearest: 37; on the other side: 29"):
        eights_and_five.check_num_frames(34)


def _passes(family, num_frames):
    try:
        return family.check_num_frames(num_frames) == num_frames
    except SettingError:
        return False


def test_positions_without_a_grid_are_those_that_diffusers_slices(monkeypatch):
    from diffusers.models.embeddings import get_3d_rotary_pos_embed

    monkeypatch.setattr(rows, "FAMILIES", (COGVIDEOX_1_0, IN_PAIRS))
    config = {
        "use_rotary_positional_embeddings": True, "patch_size": 2, "patch_size_t": 2, "attention_head_dim": 32
    }  # fmt: skip
    expected = get_3d_rotary_pos_embed(
        32, None, grid_size=(3, 4), temporal_size=5, grid_type="slice", max_size=(150, 150)
    )
    found = rotary_positions(config, num_latent_frames=10, latent_height=6, latent_width=8)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
