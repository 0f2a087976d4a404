import io
import os

import numpy as np
import PIL.Image
import pytest
import torch

from flexiact_core.errors import FileError
from flexiact_core.picture_files import read_picture


def saved(tmp_path, pixels, mode=None, name="a.png", **options):
    PIL.Image.fromarray(pixels, mode).save(tmp_path / name, **options)
    return tmp_path / name


def cut_out(opacity=0):
    """Red in the middle of black that is hidden."""
    pixels = np.zeros((48, 80, 4), np.uint8)
    pixels[..., 3] = opacity
    pixels[12:36, 20:60] = (255, 0, 0, 255)
    return pixels


def test_a_picture_has_its_colours(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    read = read_picture(saved(tmp_path, pixels))
    assert torch.equal(read, torch.from_numpy(pixels)[None] / 255)


def test_transparent_parts_are_white(tmp_path):
    read = read_picture(saved(tmp_path, cut_out()))
    assert read[0, 2, 2].tolist() == [1, 1, 1]
    assert read[0, 24, 40].tolist() == [1, 0, 0]
    half = read_picture(saved(tmp_path, cut_out(51)))
    torch.testing.assert_close(half[0, 2, 2], torch.full((3,), 0.8))


def test_transparent_parts_of_a_palette_are_white(tmp_path):
    picture = PIL.Image.fromarray(np.zeros((20, 20), np.uint8), "P")
    picture.putpalette([0, 0, 0, 255, 0, 0])
    picture.putpixel((5, 5), 1)
    picture.save(tmp_path / "a.png", transparency=0)
    read = read_picture(tmp_path / "a.png")
    assert (read[0, 2, 2].tolist(), read[0, 5, 5].tolist()) == ([1, 1, 1], [1, 0, 0])


def test_sixteen_bits_of_grey_are_not_cut(tmp_path):
    values = np.linspace(0, 65535, 20 * 30).astype(np.uint16).reshape(20, 30)
    read = read_picture(saved(tmp_path, values))
    torch.testing.assert_close(read[0, ..., 0], torch.from_numpy(values.astype(np.float32) / 65535))


def test_a_picture_is_turned_as_its_camera_noted(tmp_path):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:10, :10] = 255
    read = read_picture(saved(tmp_path, pixels, exif=exif))
    assert read.shape == (1, 40, 20, 3)
    assert read[0, 2, -2].tolist() == [1, 1, 1]


def test_a_damaged_picture_is_a_sentence_without_a_folder(tmp_path):
    whole = saved(tmp_path, cut_out()).read_bytes()
    for content in (b"", b"no picture", whole[:60], whole[:20] + b"\xff" * 40 + whole[60:]):
        (tmp_path / "b.png").write_bytes(content)
        with pytest.raises(FileError, match="^b.png: this picture cannot be read") as refused:
            read_picture(tmp_path / "b.png")
        assert str(tmp_path) not in str(refused.value)


def test_a_picture_of_too_many_pixels_is_refused_by_its_first_bytes(tmp_path):
    # A header alone: 20000 x 20000, and no pixels.
    header = io.BytesIO()
    PIL.Image.new("1", (8, 8)).save(header, "BMP")
    content = bytearray(header.getvalue())
    content[18:26] = (20000).to_bytes(4, "little") * 2
    (tmp_path / "a.bmp").write_bytes(content)
    with pytest.raises(FileError, match="a.bmp: "):
        read_picture(tmp_path / "a.bmp")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_pipes_and_folders_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", tmp_path, tmp_path / "gone.png"):
        with pytest.raises(FileError, match="no picture file of that name"):
            read_picture(path)
