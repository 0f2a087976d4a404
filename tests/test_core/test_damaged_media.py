"""Damaged pictures, videos and lists end in a sentence or are read: never in another exception."""

import numpy as np
import pytest
from damage import ends_in_sentences
from videos import HEADER, make_video, write_frames, write_rows

from flexiact_core.audio import read_sound
from flexiact_core.clip_lists import read_clip_list
from flexiact_core.picture_files import read_picture, read_stored_picture
from flexiact_core.video_files import read_video

NOISE = np.random.default_rng(0).integers(0, 255, (12, 32, 48, 3), np.uint8)


@pytest.mark.filterwarnings("ignore")  # Pillow's own, of damaged tags
@pytest.mark.parametrize("ending", ["jpg", "png", "gif", "bmp", "tiff", "webp"])
def test_a_damaged_picture(tmp_path, ending):
    from PIL import Image

    Image.fromarray(NOISE[0]).save(tmp_path / f"a.{ending}")
    good = (tmp_path / f"a.{ending}").read_bytes()
    # Of a .bmp most is pixels, which any value can be.
    assert ends_in_sentences(read_picture, tmp_path / f"a.{ending}", good, seed=ending) > 30
    assert ends_in_sentences(read_stored_picture, tmp_path / f"a.{ending}", good, seed=ending) > 30


@pytest.mark.parametrize(("ending", "codec", "pix_fmt"), [("mp4", "libx264", "yuv420p"), ("mkv", "mjpeg", "yuvj420p")])
def test_a_damaged_video(tmp_path, ending, codec, pix_fmt):
    file = write_frames(tmp_path / f"a.{ending}", NOISE, 8, codec=codec, pix_fmt=pix_fmt)
    good = file.read_bytes()
    refused = ends_in_sentences(lambda path: read_video(path, 8, 0.3, 1, size=(32, 32)), file, good, seed=ending)
    assert refused > 30


def test_damaged_sound(tmp_path):
    import wave

    file = tmp_path / "a.wav"
    with wave.open(str(file), "wb") as sound:
        sound.setnchannels(2)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(NOISE.tobytes()[:8000])
    assert ends_in_sentences(read_sound, file, file.read_bytes(), seed="wav") > 10


def test_a_damaged_list(tmp_path):
    make_video(tmp_path / "clip.mp4", 20, 8)
    file = write_rows(tmp_path / "a.csv", HEADER, *(["clip.mp4", at, 16, 8, 1, "a man, who waves"] for at in range(9)))
    assert ends_in_sentences(read_clip_list, file, file.read_bytes(), seed="csv") > 30
