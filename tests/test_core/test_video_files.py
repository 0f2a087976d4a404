import os
import subprocess
import sys
from pathlib import Path

import av
import pytest
import torch

from flexiact_core.errors import FileError
from flexiact_core.video_files import read_video, write_preview


def clip(num_frames, height=48, width=64):
    """Frames whose brightness tells their number."""
    return torch.linspace(0.1, 0.9, num_frames)[:, None, None, None].expand(num_frames, height, width, 3)


def test_a_preview_shows_the_clip_at_its_speed(tmp_path):
    path = write_preview(tmp_path / "new" / "jump.mp4", clip(17), fps=8)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert float(stream.average_rate) == 8
    frames = read_video(path, fps=8)
    assert frames.shape == (17, 48, 64, 3)
    torch.testing.assert_close(frames.float().mean((1, 2, 3)) / 255, clip(17).mean((1, 2, 3)), rtol=1e-5, atol=0.02)


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(480, 720, (170, 256)), (720, 480, (256, 170)), (47, 63, (48, 64)), (16, 2000, (2, 256))],
)
def test_a_preview_is_at_most_256_pixels_and_six_seconds(tmp_path, height, width, size):
    path = write_preview(tmp_path / "a.mp4", clip(60, height, width), fps=8)
    assert read_video(path, fps=8).shape == (48, *size, 3)


def test_a_browser_can_start_before_the_whole_file_is_there(tmp_path):
    content = write_preview(tmp_path / "a.mp4", clip(9), fps=8).read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


def test_a_preview_that_cannot_be_encoded_leaves_the_old_one_and_nothing_else(tmp_path):
    path = write_preview(tmp_path / "a.mp4", clip(9), fps=8)
    before = path.read_bytes()
    with pytest.raises(FileError, match=r"a\.mp4: this preview could not be encoded"):
        write_preview(path, clip(9), fps=-1)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"]


def test_a_preview_that_cannot_be_saved_says_where(tmp_path):
    (tmp_path / "a.mp4").mkdir()
    with pytest.raises(FileError, match=r"a\.mp4: could not be saved in"):
        write_preview(tmp_path / "a.mp4", clip(9), fps=8)
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"]


def test_the_bytes_of_a_video_depend_on_its_frames_alone():
    # What malloc gives is filled with another byte each time: an encoder that reads what it never wrote shows it.
    code = (
        "import hashlib, torch; from flexiact_core.video_files import encode_video\n"
        "g = torch.Generator().manual_seed(0)\n"
        "frames = torch.rand(9, 8, 8, 3, generator=g).repeat_interleave(8, 1).repeat_interleave(8, 2)\n"
        "print(hashlib.sha256(encode_video(frames, 8)).hexdigest())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code], cwd=Path(__file__).parents[2], env=os.environ | {"MALLOC_PERTURB_": filling},
            capture_output=True, text=True, check=True,
        ).stdout
        for filling in ("85", "201")
    }  # fmt: skip
    assert len(found) == 1
