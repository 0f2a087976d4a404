"""Sound of a video file, cut or filled to a length."""

from fractions import Fraction

import pytest
import torch

from flexiact_core.audio import fit_sound, read_sound
from flexiact_core.errors import FileError

RATE = 16000


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Two seconds: silence, then a loud tone; lossless, so that places can be compared."""
    import av

    path = tmp_path_factory.mktemp("sound") / "two.mkv"
    samples = torch.zeros(1, 2 * RATE)
    samples[:, RATE:] = 0.5 * torch.sin(torch.arange(RATE) * 0.1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=RATE, layout="mono")
        pixels = (samples * 32767).round().to(torch.int16).numpy()
        for start in range(0, 2 * RATE, 1000):
            frame = av.AudioFrame.from_ndarray(pixels[:, start : start + 1000], format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, start, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path, samples


def test_a_file_gives_its_sound_whole_or_a_stretch_of_it(file):
    path, samples = file
    sound, rate = read_sound(path)
    assert rate == RATE
    torch.testing.assert_close(sound, samples, atol=1e-4, rtol=0)
    stretch, _ = read_sound(path, 0.9, 0.25)
    torch.testing.assert_close(stretch, samples[:, round(0.9 * RATE) : round(1.15 * RATE)], atol=1e-4, rtol=0)
    assert read_sound(path, 1.9, 5.0)[0].shape == (1, RATE // 10)


def test_a_video_without_sound_gives_none_and_no_video_is_a_sentence(tmp_path):
    import av

    path = tmp_path / "mute.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("h264", rate=8, width=32, height=32, pix_fmt="yuv420p")
        container.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        container.mux(stream.encode())
    assert read_sound(path) is None
    (tmp_path / "no.mp4").write_bytes(b"nothing of the kind")
    with pytest.raises(FileError, match="no.mp4: its sound cannot be read"):
        read_sound(tmp_path / "no.mp4")


@pytest.mark.parametrize("seconds", [0.5, 1.0, 2.5])
def test_sound_gets_exactly_the_length(seconds):
    samples = torch.rand(1, 2, RATE)
    fitted = fit_sound(samples, RATE, seconds)
    assert fitted.shape == (1, 2, round(seconds * RATE))
    kept = min(RATE, fitted.shape[-1])
    assert torch.equal(fitted[..., :kept], samples[..., :kept]) and not fitted[..., kept:].any()


def test_damaged_sound_is_silent_and_the_rest_keeps_its_time(file, tmp_path):
    import av

    path, samples = file
    with av.open(str(path)) as source, av.open(str(tmp_path / "b.mkv"), "w") as target:
        stream = target.add_stream_from_template(source.streams.audio[0])
        for index, packet in enumerate(source.demux(audio=0)):
            # Of 32 packets of 1000 samples, four in the loud second; a Matroska file counts in milliseconds.
            if packet.size and index not in range(20, 24):
                packet.stream = stream
                target.mux(packet)
    expected = samples.clone()
    expected[:, 20000:24000] = 0
    sound, _ = read_sound(tmp_path / "b.mkv")
    torch.testing.assert_close(sound, expected, atol=1e-4, rtol=0)
    stretch, _ = read_sound(tmp_path / "b.mkv", 1.4, 0.3)
    torch.testing.assert_close(stretch, expected[:, round(1.4 * RATE) : round(1.7 * RATE)], atol=1e-4, rtol=0)


def test_what_lies_before_a_stretch_of_sound_is_not_kept_and_reading_stops_when_asked(file):
    path, samples = file
    stretch, _ = read_sound(path, 1.9)
    assert stretch.untyped_storage().nbytes() == samples[:, round(1.9 * RATE) :].numel() * 4

    class Stopped(Exception):
        pass

    def stop():
        raise Stopped

    with pytest.raises(Stopped):
        read_sound(path, on_packet=stop)
