"""What is decoded of a file: the stretch asked for, whatever lies before it, and what damage has left."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from videos import make_video, write_frames

from flexiact_core import decoding
from flexiact_core.audio import read_sound
from flexiact_core.errors import FileError, SettingError
from flexiact_core.video_files import read_video

SECONDS = 40


class Stopped(Exception):
    pass


def make_long(file, codec, **options):
    """`file`: 40 s at 24 frames per second; bars across it tell each frame's number in binary."""
    number = np.arange(SECONDS * 24)
    bits = (number[:, None] >> np.arange(10) & 1).astype(np.uint8) * 255
    pixels = np.repeat(bits, 6, 1)[:, None, :, None]
    with av.open(str(file), "w") as container:
        stream = container.add_stream(codec, rate=24, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        for index in number:
            picture = np.zeros((32, 64, 3), np.uint8)
            picture[:, :60] = pixels[index]
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts, frame.time_base = int(index), Fraction(1, 24)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file


@pytest.fixture(scope="module")
def long_videos(tmp_path_factory):
    """By container: frames of the future are needed for some, groups are open, frames are of one kind."""
    folder = tmp_path_factory.mktemp("long")
    return [
        make_long(folder / "a.mp4", "libx264", g="48", bf="3", **{"x264-params": "open-gop=1"}),
        make_long(folder / "b.mkv", "libx264", g="100"),
        make_long(folder / "c.avi", "mpeg4", g="30"),
        make_long(folder / "d.ts", "libx264", g="48"),
    ]


def read_counting(video, start, duration=1.0):
    """The numbers of the frames read from `start` on, and how many packets were decoded for that."""
    packets = []
    frames = read_video(video, 8, start, duration, on_packet=lambda: packets.append(1))
    bits = (frames[:, 16, 3:60:6].float().mean(-1) > 128).long()
    return (bits << torch.arange(10)).sum(-1).tolist(), len(packets)


@pytest.mark.parametrize("start", [9.0, 10.5, 23.97, 30.1, 38.9])
def test_a_late_start_gives_the_frames_of_that_moment(long_videos, start):
    # The frame nearest to each moment; halfway, as 24 and 8 per second never are, decides nothing.
    expected = [round((start + index / 8) * 24) for index in range(8)]
    for video in long_videos:
        assert read_counting(video, start)[0] == expected, video.name


def test_what_lies_long_before_a_start_is_not_decoded(long_videos):
    for video in long_videos[:3]:
        _, packets = read_counting(video, 38.5)
        # Two seconds before it, a group of frames, and what decoders hold.
        assert packets < 48 + 100 + 40, video.name


def test_where_a_file_cannot_be_gone_into_all_is_decoded(long_videos, monkeypatch):
    whole = long_videos[3]
    assert read_counting(whole, 38.5)[1] > 38 * 24, "clocks of broadcasts jump"
    # Past the start, as with an index that is wrong.
    monkeypatch.setattr(decoding, "DECODED_BEFORE_SECONDS", -9)
    numbers, packets = read_counting(long_videos[0], 20.0)
    assert numbers == [480 + 3 * index for index in range(8)]
    assert packets > 480


def test_a_start_after_the_end_is_told_without_decoding_all(long_videos):
    packets = []
    with pytest.raises(SettingError, match=r"start 3000 s: a.mp4 ends before that, after 40.0 s"):
        read_video(long_videos[0], 8, 3000, on_packet=lambda: packets.append(1))
    assert len(packets) < 150


def test_a_video_in_memory_is_gone_into_as_well(long_videos):
    numbers, packets = read_counting(io.BytesIO(long_videos[0].read_bytes()), 30)
    assert numbers == [720 + 3 * index for index in range(8)]
    assert packets < 200


def test_reading_can_be_stopped_at_any_packet(long_videos):
    left = [100]

    def stop():
        left[0] -= 1
        if not left[0]:
            raise Stopped

    with pytest.raises(Stopped):
        read_video(long_videos[3], 8, 30, on_packet=stop)
    assert left == [0]


def damage(file, which):
    """`file`, its packets `which` of the first stream full of zeros."""
    with av.open(str(file)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(container.streams[0]) if packet.size]
    content = bytearray(file.read_bytes())
    for position, size in packets[which]:
        # What says where the packet begins and ends stays.
        content[position + 30 : position + size] = bytes(size - 30)
    file.write_bytes(content)
    return file


def write_counted(file):
    """An MJPEG file of 24 frames at 8 per second; brightness tells their number."""
    values = np.arange(24, dtype=np.uint8) * 4
    frames = np.broadcast_to(values[:, None, None, None], (24, 48, 64, 3)).copy()
    return write_frames(file, frames, fps=8, codec="mjpeg", pix_fmt="yuvj420p")


@pytest.mark.parametrize("which", [slice(10, 13), slice(0, 2), slice(22, 24)])
def test_damaged_packets_are_left_out_and_the_rest_keeps_its_time(tmp_path, which):
    said = []
    video = damage(write_counted(tmp_path / "a.mkv"), which)
    shown = (read_video(video, 8, on_note=said.append)[:, 24, 32].float().mean(-1) / 4).round().int().tolist()
    lost = range(24)[which]
    first = lost.stop if lost.start == 0 else 0
    # Seconds count from the first frame that there is; in a gap the nearest frame stands.
    expected = [index for index in range(first, 24) if index not in lost]
    assert sorted(set(shown)) == expected
    assert all(shown[index - first] == index for index in expected)
    assert said == ["a.mkv: it is damaged in places; what cannot be decoded is left out."]


def test_a_video_of_damage_alone_is_refused(tmp_path):
    with pytest.raises(FileError, match="a.mkv: this video cannot be read"):
        read_video(damage(write_counted(tmp_path / "a.mkv"), slice(0, 24)), 8)


def test_a_video_that_ends_in_the_middle_is_read_as_far_as_it_goes(tmp_path):
    content = write_counted(tmp_path / "a.mkv").read_bytes()
    (tmp_path / "b.mkv").write_bytes(content[: len(content) // 2])
    assert 8 <= len(read_video(tmp_path / "b.mkv", 8)) <= 14


def test_a_list_of_files_that_calls_itself_a_video_gives_no_sound(tmp_path):
    other = make_video(tmp_path / "other.mp4", 8, 8)
    (tmp_path / "a.mp4").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile://{other}\n#EXT-X-ENDLIST\n")
    with pytest.raises(FileError, match="a.mp4: its sound cannot be read"):
        read_sound(tmp_path / "a.mp4")


def test_a_title_that_is_no_utf_8_and_a_brand_that_is_no_letter_are_no_hindrance(tmp_path):
    content = make_video(tmp_path / "a.mp4", 8, 8).read_bytes()
    (tmp_path / "b.mp4").write_bytes(content.replace(b"isomiso2", b"isom\xe9so2", 1))
    assert len(read_video(tmp_path / "b.mp4", 8)) == 8


def test_what_cannot_be_decoded_is_said_and_is_no_damage(tmp_path):
    content = write_counted(tmp_path / "a.mkv").read_bytes()
    (tmp_path / "b.mkv").write_bytes(content.replace(b"V_MJPEG", b"V_MJPEX", 1))
    with pytest.raises(FileError, match="b.mkv: its video is of a kind that is not decoded here. Encode it as H.264"):
        read_video(tmp_path / "b.mkv", 8)
