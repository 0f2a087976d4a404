import io
import os
from pathlib import Path

import av
import numpy as np
import pytest
from memory import highest_memory_mb
from videos import make_video, write_frames

from flexiact_core.errors import FileError, SettingError
from flexiact_core.video import fit_frames
from flexiact_core.video_files import read_video, within_window


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


def numbers_of(frames):
    """Which frame of counted() each is."""
    return (frames[:, 24, 32].float().mean(-1) / 4).round().int().tolist()


def counted(num_frames, height=48, width=64):
    """Frames whose brightness tells their number."""
    values = np.arange(num_frames, dtype=np.uint8) * 4
    return np.broadcast_to(values[:, None, None, None], (num_frames, height, width, 3)).copy()


def test_a_stream_without_time_stamps_comes_at_its_own_rate(tmp_path):
    for fps in (24, 8):
        video = write_frames(tmp_path / "a.h264", counted(3 * fps // 2), fps, container_format="h264")
        assert numbers_of(read_video(video, fps=8)) == list(range(0, 3 * fps // 2, fps // 8))


def test_a_clock_that_falls_back_goes_on_where_it_was(tmp_path):
    part = write_frames(tmp_path / "a.ts", counted(16), fps=8, container_format="mpegts").read_bytes()
    (tmp_path / "b.ts").write_bytes(part * 3)
    said = []
    assert numbers_of(read_video(tmp_path / "b.ts", fps=8, on_note=said.append)) == list(range(16)) * 3
    assert said == ["b.ts: its clock jumps; the frames after a jump follow those before it."]


def test_a_clock_that_jumps_by_an_hour_goes_on_where_it_was(tmp_path):
    times = [index / 8 + 3600 * (index >= 10) for index in range(20)]
    video = write_frames(tmp_path / "a.mkv", counted(20), fps=8, times_s=times)
    assert numbers_of(read_video(video, fps=8)) == list(range(20))


def test_a_pause_is_no_jump(tmp_path):
    video = write_frames(tmp_path / "a.mkv", counted(3), fps=8, times_s=[0, 30, 30.125])
    said = []
    shown = numbers_of(read_video(video, fps=8, on_note=said.append))
    assert (shown[:120], shown[120:]) == ([0] * 120, [1] * 121 + [2])
    assert not said


def test_frames_that_come_out_of_order_do_not_shift_those_after_them(tmp_path):
    order = [0, 1, 2, 4, 3, 5, 6, 8, 7, 9, 10, 11]
    ordered = write_frames(tmp_path / "a.mkv", counted(12)[order], fps=8, codec="mjpeg", pix_fmt="yuvj420p")
    with av.open(str(ordered)) as source, av.open(str(tmp_path / "b.mkv"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet, at in zip(source.demux(video=0), order, strict=False):
            if packet.size:
                packet.dts, packet.pts, packet.stream = packet.pts, at * 125 + 1000, stream
                target.mux(packet)
    shown = numbers_of(read_video(tmp_path / "b.mkv", fps=8))
    assert len(shown) == 12
    assert shown[5:7] == [5, 6]
    assert shown[9:] == [9, 10, 11]


def test_the_last_frame_is_shown_as_long_as_it_lasts(tmp_path):
    import PIL.Image

    pictures = [PIL.Image.fromarray(frame) for frame in counted(2)[:, :, :] * 20]
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=[250, 1000])
    assert len(read_video(tmp_path / "a.gif", fps=8)) == 10


def test_a_size_that_changes_midway_does_not_stop_it(tmp_path):
    first = write_frames(tmp_path / "a.h264", counted(8), fps=8, container_format="h264").read_bytes()
    second = write_frames(tmp_path / "b.h264", counted(8, 64, 96), fps=8, container_format="h264").read_bytes()
    (tmp_path / "c.h264").write_bytes(first + second)
    frames = read_video(tmp_path / "c.h264", fps=8)
    assert frames.shape == (16, 48, 64, 3)
    assert numbers_of(frames) == list(range(8)) * 2


def test_frames_of_a_size_are_those_of_the_whole_frames_scaled(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (9, 12, 16, 3), np.uint8).repeat(8, 1).repeat(8, 2)
    video = write_frames(tmp_path / "a.mp4", noise, fps=8)
    scaled = fit_frames(read_video(video, fps=8) / 255, 80, 64)
    error = (read_video(video, fps=8, size=(80, 64)) / 255 - scaled).abs() * 255
    # Whole brightness levels are rounded between rows and columns, too.
    assert error.mean() < 0.5
    assert error.max() < 10


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="reads /proc")
def test_memory_does_not_grow_with_the_size_of_the_source(tmp_path):
    pixels = np.zeros((40, 1080, 1920, 3), np.uint8)
    video = write_frames(tmp_path / "a.mkv", pixels, fps=8, codec="mjpeg", pix_fmt="yuvj420p")
    few = highest_memory_mb(lambda: read_video(video, 8, duration=1, size=(96, 64)))
    many = highest_memory_mb(lambda: read_video(video, 8, size=(96, 64)))
    # 32 frames more, of 6 MB each as they are stored.
    assert many - few < 60


def with_cover(tmp_path):
    """An .mp3 of one second with a cover, as its tags hold it."""
    import PIL.Image

    cover = io.BytesIO()
    PIL.Image.new("RGB", (64, 64), "green").save(cover, "JPEG")
    tag = b"\0image/jpeg\0\x03\0" + cover.getvalue()
    tag = b"APIC" + len(tag).to_bytes(4, "big") + b"\0\0" + tag
    size = bytes(len(tag) >> shift & 127 for shift in (21, 14, 7, 0))
    silence = (b"\xff\xfb\x90\xc4" + bytes(413)) * 40
    file = tmp_path / "song.mp3"
    file.write_bytes(b"ID3\x03\0\0" + size + tag + silence)
    return file


def test_a_cover_is_no_video(tmp_path):
    with av.open(str(with_cover(tmp_path))) as container:
        assert len(container.streams.video) == 1
    with pytest.raises(FileError, match=r"song.mp3: no video in it, only sound with a cover"):
        read_video(tmp_path / "song.mp3", fps=8)


def test_a_video_without_a_frame_says_so(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w", options={"movflags": "empty_moov"}) as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()
    with pytest.raises(FileError, match="a.mp4: no frame in it"):
        read_video(tmp_path / "a.mp4", fps=8)


def test_a_list_of_other_files_that_calls_itself_a_video_opens_none(tmp_path):
    write_frames(tmp_path / "other.ts", counted(8), fps=8, container_format="mpegts")
    lists = {
        "a.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{}\n#EXT-X-ENDLIST\n",
        "b.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile://{}\n#EXT-X-ENDLIST\n",
        "c.mp4": "ffconcat version 1.0\nfile {}\n",
    }
    for name, text in lists.items():
        (tmp_path / name).write_text(text.format(tmp_path / "other.ts"))
        with pytest.raises(FileError, match=f"{name}: this video cannot be read"):
            read_video(tmp_path / name, fps=8)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_pipes_devices_and_folders_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "folder.mp4").mkdir()
    for path in (tmp_path / "pipe.mp4", tmp_path / "folder.mp4", tmp_path / "gone.mp4", Path("/dev/zero")):
        with pytest.raises(FileError, match=f"{path.name}: no video file of that name"):
            read_video(path, fps=8)


@pytest.mark.parametrize("name", ["fps", "start", "duration"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, None])
def test_a_number_that_is_none_is_refused_by_name(tmp_path, name, value):
    video = make_video(tmp_path / "a.mp4", num_frames=9, fps=8)
    with pytest.raises(SettingError, match=f"{name} .*: a number of at least"):
        read_video(video, **{"fps": 8, name: value})


def test_no_folder_is_named_to_who_sends_a_damaged_file(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video at all")
    with pytest.raises(FileError) as refused:
        read_video(tmp_path / "a.mp4", fps=8)
    assert str(tmp_path) not in str(refused.value)


@pytest.mark.parametrize(
    ("asked", "in_file"),
    [((0, 0), (1.0, 2.0)), ((0.5, 0), (1.5, 1.5)), ((0.5, 1), (1.5, 1)), ((0.5, 9), (1.5, 1.5))],
)
def test_a_stretch_of_a_trimmed_video_stays_inside_it(asked, in_file):
    assert within_window(*asked, 1.0, 2.0) == in_file


def test_a_stretch_after_a_trimmed_video_is_refused_with_its_length():
    for start in (2.0, 3.0):
        with pytest.raises(SettingError, match=f"start {start:g} s: the trimmed video has 2 seconds"):
            within_window(start, 0, 1.0, 2.0)


def test_a_video_that_is_not_trimmed_at_its_end_goes_on_to_the_files_end():
    assert within_window(3, 0, 1.0, 0) == (4.0, 0)
