import io

import pytest
from videos import make_video

from flexiact_core.errors import FileError, SettingError
from flexiact_core.video_files import read_video


def numbers(frames):
    """Which frame of make_video() each is, read off its brightness. Halfway between two, the later one is taken."""
    return (frames[:, 0, 0].float().mean(-1) / 4).round().int().tolist()


def test_a_faster_video_gives_the_frame_nearest_to_each_moment(tmp_path):
    frames = read_video(make_video(tmp_path / "a.mp4", num_frames=60, fps=60), fps=8)
    assert frames.shape == (8, 48, 64, 3)
    assert numbers(frames) == [0, 8, 15, 23, 30, 38, 45, 53]


def test_a_slower_video_repeats_frames_so_that_time_stays_true(tmp_path):
    frames = read_video(make_video(tmp_path / "a.mp4", num_frames=5, fps=4), fps=8)
    assert numbers(frames) == [0, 1, 1, 2, 2, 3, 3, 4, 4, 4]


def test_a_variable_rate_goes_by_the_time_stamps(tmp_path):
    times = [0, 100, 200, 300, 400, 1000, 1100, 1200, 1300, 2000]
    frames = read_video(make_video(tmp_path / "a.mp4", num_frames=10, fps=30, times_ms=times), fps=8)
    # At 0.75 s, the seventh moment, the frame of 1.0 s is nearer than that of 0.4 s.
    assert numbers(frames)[:9] == [0, 1, 3, 4, 4, 4, 5, 5, 5]


def test_start_and_duration_are_seconds(tmp_path):
    video = make_video(tmp_path / "a.mp4", num_frames=60, fps=30)
    assert numbers(read_video(video, fps=8, start=0.5, duration=0.5)) == [15, 19, 23, 26]


def test_a_video_of_one_frame_gives_one_frame(tmp_path):
    assert len(read_video(make_video(tmp_path / "a.mp4", num_frames=1, fps=30), fps=8)) == 1


def test_a_video_in_memory_is_read_too(tmp_path):
    video = make_video(tmp_path / "a.mp4", num_frames=16, fps=8)
    assert len(read_video(io.BytesIO(video.read_bytes()), fps=8)) == 16


def test_a_start_after_the_end_is_refused(tmp_path):
    with pytest.raises(SettingError, match="start 5 s: a.mp4 ends before that"):
        read_video(make_video(tmp_path / "a.mp4", num_frames=8, fps=8), fps=8, start=5)


def test_more_than_a_minute_is_refused_with_the_way_to_trim_it(tmp_path):
    video = make_video(tmp_path / "a.mp4", num_frames=62, fps=1)
    with pytest.raises(SettingError, match="more than 60 seconds.*start and duration"):
        read_video(video, fps=8)
    assert len(read_video(video, fps=8, start=1, duration=2)) == 16


def test_a_file_that_is_no_video_is_refused(tmp_path):
    file = tmp_path / "a.mp4"
    file.write_bytes(b"no video at all")
    with pytest.raises(FileError, match="a.mp4: this video cannot be read"):
        read_video(file, fps=8)
