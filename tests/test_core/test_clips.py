import os

import pytest
import torch

from flexiact_core.clips import ClipFormat, cut_crops, nearest_frames, random_crops, select_window, trim_frames
from flexiact_core.errors import SettingError, ShapeError

CPU = torch.device("cpu")


def numbered(count):
    """Frames that hold their own number."""
    return torch.arange(float(count)).reshape(-1, 1, 1, 1).expand(-1, 16, 16, 3)


def numbers(frames):
    return frames[:, 0, 0, 0].tolist()


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def form(max_frames):
    return ClipFormat(64, 48, 8, max_frames, 9, 8, 1)


def picture(count=9, height=48, width=64, seed=1):
    return torch.rand(count, height, width, 3, generator=seeded(seed))


def test_every_third_frame_of_a_24_fps_video_is_taken():
    assert nearest_frames(72, 24.0, 8).tolist() == list(range(0, 72, 3))


@pytest.mark.parametrize("fps", [0.5, 4.0, 7.5, 8.0, 23.976, 25.0, 29.97, 30.0, 50.0, 60.0])
def test_the_frame_nearest_to_each_moment_is_taken(fps):
    taken = nearest_frames(240, fps, 8).tolist()
    assert len(taken) == round(240 * 8 / fps)
    for index, number in enumerate(taken[: int(239 * 8 / fps)]):
        assert abs(number / fps - index / 8) <= 0.5 / fps + 1e-6


def test_frames_of_slow_videos_are_repeated_so_that_time_stays_true():
    assert nearest_frames(4, 4.0, 8).tolist() == [0, 1, 1, 2, 2, 3, 3, 3]
    assert nearest_frames(3, 2.0, 8).tolist() == [0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2]


@pytest.mark.parametrize("fps", [4, 8, 12, 24])
def test_a_file_and_its_frames_give_the_same(tmp_path, fps):
    from videos import make_video

    from flexiact_core.video_files import read_video

    video = read_video(make_video(tmp_path / "a.mp4", num_frames=2 * fps, fps=fps), 8)[:, 0, 0, 0]
    # make_video() tells each frame's number by its brightness.
    assert (video / 4).round().int().tolist() == nearest_frames(2 * fps, fps, 8).tolist()


def test_a_very_short_fast_video_keeps_at_least_one_frame():
    assert nearest_frames(2, 120.0, 8).tolist() == [0]


@pytest.mark.parametrize("fps", [0.0, -8.0, float("nan"), float("inf")])
def test_a_video_without_a_speed_is_refused(fps):
    for use in (lambda: nearest_frames(10, fps, 8), lambda: trim_frames(numbered(10), fps, 0, 0)):
        with pytest.raises(SettingError, match="fps .*no speed. Set its frame rate"):
            use()


def test_a_stretch_is_cut_by_seconds():
    frames = numbered(48)
    assert numbers(trim_frames(frames, 8, 1.0, 2.0)) == list(range(8, 24))
    assert numbers(trim_frames(frames, 8, 5.0, 0)) == list(range(40, 48))
    # Shorter than a frame is one frame, and not all of them.
    assert numbers(trim_frames(frames, 8, 1.0, 0.01)) == [8]
    with pytest.raises(SettingError, match="start 6 s: the reference has 6.0 seconds"):
        trim_frames(frames, 8, 6.0, 0)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, None])
def test_stretches_and_scales_that_are_no_numbers_are_refused_by_name(value):
    for name, use in {
        "start": lambda: trim_frames(numbered(9), 8, value, 0),
        "duration": lambda: trim_frames(numbered(9), 8, 0, value),
        "smallest_scale": lambda: cut_crops(numbered(9), 8, form(9), 2, seeded(), scale_range=(value, 1.2)),
        "largest_scale": lambda: cut_crops(numbered(9), 8, form(9), 2, seeded(), scale_range=(0.8, value)),
    }.items():
        with pytest.raises(SettingError, match=f"^{name} .*: a number of at least"):
            use()


def test_crops_of_slow_frames_keep_their_time():
    ramp = torch.linspace(0, 0.9, 24)[:, None, None, None].expand(24, 48, 64, 3)
    clip = cut_crops(ramp, 4.0, form(17), 1, seeded())[0][:, 24, 32, 0]
    # Sixteen steps of an eighth of a second are eight source frames.
    torch.testing.assert_close(clip[-1] - clip[0], torch.tensor(8 * 0.9 / 23), atol=0.9 / 23, rtol=0)


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="reads /proc")
def test_crops_of_large_frames_take_memory_for_the_size_asked_for():
    from memory import highest_memory_mb

    frames = torch.zeros(49, 1080, 1920, 3, dtype=torch.uint8)
    # As numbers of 32 bits, all frames would be 1.2 GB.
    assert highest_memory_mb(lambda: cut_crops(frames, 8, form(49), 1, seeded())) < 500


@pytest.mark.parametrize(("count", "length"), [(9, 9), (16, 9), (17, 17), (48, 41), (49, 49), (200, 49)])
def test_a_window_is_the_longest_stretch_of_8k_plus_1_frames(count, length):
    window = numbers(select_window(numbered(count), form(49), seeded()))
    assert len(window) == length
    assert window == list(range(int(window[0]), int(window[0]) + length))


def test_windows_lie_anywhere_and_follow_their_generator():
    starts = {numbers(select_window(numbered(20), form(17), seeded(seed)))[0] for seed in range(60)}
    assert starts == {0, 1, 2, 3}
    first, again = (select_window(numbered(60), form(17), seeded(5)) for _ in range(2))
    assert torch.equal(first, again)


@pytest.mark.parametrize("count", [0, 1, 8])
def test_too_short_a_reference_is_refused_with_what_is_needed(count):
    with pytest.raises(ShapeError, match=rf"reference: {count} frames at 8 fps found, at least 9 .*\(1.1 seconds\)"):
        select_window(numbered(count), form(49), seeded())


def test_crops_have_the_size_asked_for_and_the_first_is_the_fitted_video():
    from flexiact_core.video import fit_frames

    frames = picture()
    crops = random_crops(frames, 32, 32, 4, seeded())
    assert len(crops) == 4
    assert all(crop.shape == (9, 32, 32, 3) for crop in crops)
    assert torch.equal(crops[0], fit_frames(frames, 32, 32))
    assert all(crop.min() >= 0 and crop.max() <= 1 for crop in crops)


def test_crops_differ_from_each_other_and_follow_their_generator():
    first, again, other = (random_crops(picture(), 32, 32, 4, seeded(seed)) for seed in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[1], other[1])
    assert not torch.equal(first[1], first[2]) and not torch.equal(first[0], first[1])


def test_one_crop_is_the_video_alone_and_draws_nothing():
    generator = seeded()
    before = generator.get_state()
    assert len(random_crops(picture(), 32, 32, 1, generator)) == 1
    assert torch.equal(generator.get_state(), before)


def test_a_crop_moves_all_frames_alike():
    still = picture(1).expand(9, -1, -1, -1)
    for crop in random_crops(still, 32, 32, 4, seeded()):
        torch.testing.assert_close(crop, crop[:1].expand_as(crop), rtol=1e-5, atol=1e-06)


def scale_and_shift(crop):
    """Of a crop of two ramps: pixels of the crop per pixel of the video, and how far its centre lies off (sides)."""
    middle = crop[0, 20:44, 20:44]
    along_x, along_y = middle[..., 0], middle[..., 1]
    slope_x = (along_x[:, -1] - along_x[:, 0]).mean() / 23 * 64
    slope_y = (along_y[-1] - along_y[0]).mean() / 23 * 64
    return slope_x.item(), slope_y.item(), along_x.mean().item() - 0.5, along_y.mean().item() - 0.5


def test_crops_keep_the_shape_of_things_and_stay_within_their_scale_and_shift():
    steps = (torch.arange(64) + 0.5) / 64
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    ramps = torch.stack([x, y, x], dim=-1)[None]
    found = [scale_and_shift(crop) for crop in random_crops(ramps, 64, 64, 60, seeded())[1:]]
    for slope_x, slope_y, right, down in found:
        assert slope_x == pytest.approx(slope_y, rel=0.02)
        assert 0.8 - 0.02 <= 1 / slope_x <= 1.2 + 0.02
        assert max(abs(right), abs(down)) <= 0.14 * 1.02
    scales = [1 / slope for slope, *_ in found]
    assert min(scales) < 0.85 and max(scales) > 1.15
    assert min(right for *_, right, _ in found) < -0.08 and max(down for *_, down in found) > 0.08


def test_what_lies_outside_a_crop_mirrors_the_border():
    white = torch.ones(1, 32, 32, 3)
    for crop in random_crops(white, 32, 32, 8, seeded()):
        assert crop.min() > 0.99


def test_a_reference_too_small_to_show_anything_is_refused():
    with pytest.raises(ShapeError, match="reference: 4x4 pixels is too small; at least 16x16 is needed"):
        cut_crops(torch.rand(17, 4, 4, 3), 8, form(17), 1, seeded())
