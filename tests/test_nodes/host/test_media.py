"""ComfyUI's IMAGE and VIDEO values, to frames and back."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close
from videos import make_video

media = pytest.importorskip("flexiact_pack.nodes.host.media", reason="needs ComfyUI: run `make test`")

from flexiact_core.errors import FileError, SettingError  # noqa: E402


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A VIDEO file of 3 s at 30 frames per second; frame i has brightness 4 * i (mod 256)."""
    from comfy_api.latest import InputImpl

    return InputImpl.VideoFromFile(str(make_video(tmp_path_factory.mktemp("clip") / "clip.mp4", 90, 30)))


def brightness(frames):
    """Of the upper half of each frame, where no bar is, in 0..255."""
    return frames[:, : frames.shape[1] // 3].float().mean((1, 2, 3))


def test_a_file_gives_frames_at_the_speed_asked_for_by_its_time_stamps(clip):
    frames, fps = media.from_reference(clip, 99.0, 8)
    assert fps == 8 and len(frames) == 24
    seconds = torch.arange(24) / 8
    expected = (seconds * 30).round() * 4 % 256
    # H.264 and the colour space move a grey by a few levels; one frame more or less is 4.
    assert_close(brightness(frames), expected, atol=5, rtol=0)


def test_start_and_duration_choose_a_stretch_of_a_file(clip):
    frames, _ = media.from_reference(clip, 99.0, 10, start=1.0, duration=0.5)
    assert len(frames) == 5
    assert_close(brightness(frames), (30 + 3 * torch.arange(5)) * 4.0, atol=5, rtol=0)


def test_a_video_that_was_trimmed_before_stays_trimmed(clip):
    trimmed = clip.as_trimmed(start_time=1.0, duration=1.0)
    frames, _ = media.from_reference(trimmed, 99.0, 10, start=0.5)
    assert len(frames) == 5
    assert_close(brightness(frames)[0], torch.tensor(45 * 4.0), atol=5, rtol=0)


def test_nothing_is_taken_from_outside_a_trimmed_stretch(clip):
    trimmed = clip.as_trimmed(start_time=0.0, duration=2.0)
    with pytest.raises(SettingError, match="start 2.5 s: the trimmed video has 2 seconds"):
        media.from_reference(trimmed, 99.0, 8, start=2.5)
    assert len(media.from_reference(trimmed, 99.0, 8, start=1.5, duration=9.0)[0]) == 4


def test_a_file_gives_frames_of_the_size_asked_for(clip):
    assert media.from_reference(clip, 99.0, 8, size=(32, 16))[0].shape == (24, 16, 32, 3)


def test_hdr_is_said_on_the_node(tmp_path, said):
    from comfy_api.latest import InputImpl
    from videos import write_frames

    video = write_frames(tmp_path / "a.mp4", np.zeros((9, 48, 64, 3), np.uint8), 8, transfer=16)
    media.from_reference(InputImpl.VideoFromFile(str(video)), 8, 8)
    assert len(said) == 1 and "a.mp4: HDR (PQ)" in said[0]


def test_pictures_are_taken_at_the_speed_that_is_said():
    images = torch.rand(30, 4, 6, 3)
    frames, fps = media.from_reference(images, 15.0, 8, start=1.0, duration=0.4)
    assert fps == 15.0
    assert_close(frames, images[15:21])


def test_a_video_made_of_pictures_brings_its_own_speed():
    images = torch.rand(10, 4, 6, 3)
    frames, fps = media.from_reference(media.to_video(images, 12), 99.0, 8)
    assert fps == 12
    assert_close(frames, images)


def test_nothing_left_is_said():
    with pytest.raises(SettingError, match="start"):
        media.from_reference(torch.rand(10, 4, 6, 3), 10.0, 8, start=5.0)


def test_what_comes_out_can_be_trained_on():
    with torch.inference_mode():
        frames, _ = media.from_reference(torch.rand(10, 4, 6, 3), 10.0, 8)
    assert not frames.is_inference()


def test_a_video_value_holds_its_frames_and_their_speed():
    frames = torch.rand(5, 4, 6, 3)
    components = media.to_video(frames, 16).get_components()
    assert components.frame_rate == Fraction(16)
    assert_close(components.images, frames)


def test_a_picture_file_is_an_image_turned_as_its_camera_says(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    picture = Image.fromarray(pixels)
    picture.save(tmp_path / "a.png")
    assert_close(media.read_image(tmp_path / "a.png")[0], torch.from_numpy(pixels) / 255)
    exif = picture.getexif()
    exif[0x0112] = 6  # turned by a quarter, clockwise
    picture.save(tmp_path / "b.png", exif=exif)
    assert_close(media.read_image(tmp_path / "b.png")[0], torch.from_numpy(np.rot90(pixels, -1).copy()) / 255)


def test_a_picture_that_cannot_be_read_is_a_sentence(tmp_path):
    (tmp_path / "no.png").write_bytes(b"text")
    with pytest.raises(FileError, match="^no.png: .*cannot be read"):
        media.read_image(tmp_path / "no.png")


def test_cancel_ends_the_reading_of_a_file_before_its_end(clip, monkeypatch):
    import comfy.model_management as management

    asked = []

    def cancel_at_tenth():
        asked.append(1)
        if len(asked) == 10:
            raise management.InterruptProcessingException

    monkeypatch.setattr(management, "throw_exception_if_processing_interrupted", cancel_at_tenth)
    with pytest.raises(management.InterruptProcessingException):
        media.from_reference(clip, 99.0, 8)
    assert len(asked) == 10
    assert len(media.from_reference(clip, 99.0, 8)[0]) == 24
