import itertools

import av
import numpy as np
import pytest
import torch
from videos import set_display_matrix, write_frames

from flexiact_core.errors import SettingError
from flexiact_core.shown_frames import MAX_PIXELS, Display, show_frame
from flexiact_core.video_files import read_video

RED, GREEN, BLUE, GREY = (255, 0, 0), (0, 255, 0), (0, 0, 255), (128, 128, 128)
MATRICES = [
    (a, b, c, d)
    for a, b, c, d in itertools.product((-1, 0, 1), repeat=4)
    if (abs(a), abs(b), abs(c), abs(d)) in ((1, 0, 0, 1), (0, 1, 1, 0))
]


def corners(height=48, width=96):
    """One frame: red top left, green top right, blue bottom left, the rest grey."""
    pixels = np.full((1, height, width, 3), GREY, np.uint8)
    pixels[:, :16, :32], pixels[:, :16, -32:], pixels[:, -16:, :32] = RED, GREEN, BLUE
    return pixels


def placed_by_hand(pixels, a, b, c, d):
    """Each pixel put where ISO 14496-12's matrix says, one after the other."""
    height, width = pixels.shape[:2]
    places = {(a * x + c * y, b * x + d * y): pixels[y, x] for y in range(height) for x in range(width)}
    left, top = min(x for x, _ in places), min(y for _, y in places)
    shape = (height, width, 3) if a else (width, height, 3)
    turned = np.zeros(shape, np.uint8)
    for (x, y), value in places.items():
        turned[y - top, x - left] = value
    return turned


@pytest.mark.parametrize("matrix", MATRICES)
def test_a_frame_is_turned_and_mirrored_as_its_display_matrix_says(tmp_path, matrix):
    assert len(MATRICES) == 8
    video = set_display_matrix(write_frames(tmp_path / "a.mp4", corners(), fps=8), *matrix)
    expected = torch.from_numpy(placed_by_hand(corners()[0], *matrix)).float()
    shown = read_video(video, fps=8)[0].float()
    assert shown.shape == expected.shape
    # Borders between colours are blurred by the encoder; the rest is the colour that belongs there.
    off = (shown - expected).abs().amax(-1) > 40
    assert off.float().mean() < 0.05


def test_a_matrix_that_is_empty_or_oblique_turns_by_the_nearest_right_angle(tmp_path):
    video = write_frames(tmp_path / "a.mp4", corners(), fps=8)
    for matrix, turned in (((0, 0, 0, 0), False), ((0.9, 0.4, -0.4, 0.9), False), ((0.1, 0.99, -0.99, 0.1), True)):
        shape = read_video(set_display_matrix(video, *matrix), fps=8).shape
        assert shape == (1, 96, 48, 3) if turned else (1, 48, 96, 3)


def box(frame):
    """Width and height of what is lit."""
    lit = frame.float().mean(-1) > 128
    return int(lit.any(0).sum()), int(lit.any(1).sum())


@pytest.mark.parametrize(
    ("aspect", "turned", "shape", "lit"),
    [
        ("2/1", False, (48, 192), (64, 32)),
        ("1/2", False, (48, 48), (16, 32)),
        ("2/1", True, (192, 48), (32, 64)),
    ],
)
def test_pixels_that_are_not_square_come_out_in_their_display_shape(tmp_path, aspect, turned, shape, lit):
    pixels = np.zeros((1, 48, 96, 3), np.uint8)
    pixels[:, 8:40, 32:64] = 255
    video = write_frames(tmp_path / "a.mp4", pixels, fps=8, pixel_aspect=aspect)
    if turned:
        set_display_matrix(video, 0, 1, -1, 0)
    frame = read_video(video, fps=8)[0]
    assert frame.shape[:2] == shape
    assert box(frame) == pytest.approx(lit, abs=2)


def test_a_size_is_covered_with_nothing_stretched_and_cut_at_the_centre(tmp_path):
    pixels = np.zeros((1, 48, 96, 3), np.uint8)
    pixels[:, 8:40, 32:64] = 255
    video = write_frames(tmp_path / "a.mp4", pixels, fps=8, pixel_aspect="2/1")
    frame = read_video(video, fps=8, size=(96, 96))[0]
    assert frame.shape == (96, 96, 3)
    # Twice as high as stored, and four times as wide, of which the middle half is seen.
    assert box(frame) == pytest.approx((96, 64), abs=2)


def test_without_a_size_frames_keep_theirs_up_to_that_of_hd(tmp_path):
    video = write_frames(tmp_path / "a.mp4", np.zeros((1, 1440, 2560, 3), np.uint8), fps=8)
    height, width = read_video(video, fps=8).shape[1:3]
    assert (width, height) == (1920, 1080)
    assert width * height == MAX_PIXELS


def test_a_frame_too_large_to_be_held_is_refused_before_it_is_converted():
    frame = av.VideoFrame(16384, 4096, "gray")
    with pytest.raises(SettingError, match="16384x4096 pixels: at most .* Scale the video down first"):
        show_frame(frame, Display())


@pytest.mark.parametrize("opacity", [0, 128, 255])
def test_what_is_transparent_lies_over_white(opacity):
    pixels = np.full((32, 32, 4), (200, 100, 0, opacity), np.uint8)
    shown = show_frame(av.VideoFrame.from_ndarray(pixels, format="rgba"), Display())
    expected = torch.tensor([255 + (value - 255) * opacity / 255 for value in (200, 100, 0)])
    torch.testing.assert_close(shown[5, 5].float(), expected, atol=0.51, rtol=0)


def test_grey_frames_come_in_three_channels():
    frame = av.VideoFrame.from_ndarray(np.full((32, 32), 77, np.uint8), format="gray")
    assert show_frame(frame, Display())[3, 3].tolist() == [77, 77, 77]


@pytest.mark.parametrize(("size", "matrix"), [((1280, 720), "ITU709"), ((640, 480), "ITU601")])
def test_colours_that_say_nothing_of_their_matrix_are_read_as_players_do(tmp_path, size, matrix):
    width, height = size
    colour = np.full((1, height, width, 3), (190, 40, 60), np.uint8)
    video = write_frames(tmp_path / "a.mp4", colour, fps=8, matrix=matrix)
    torch.testing.assert_close(
        read_video(video, fps=8)[0, 20, 20].float(), torch.tensor([190.0, 40.0, 60.0]), atol=5, rtol=0
    )


@pytest.mark.parametrize(("transfer", "word"), [(16, "PQ"), (18, "HLG"), (1, None)])
def test_hdr_is_said_once(tmp_path, transfer, word):
    video = write_frames(tmp_path / "a.mp4", np.zeros((9, 48, 64, 3), np.uint8), fps=8, transfer=transfer)
    said = []
    read_video(video, fps=8, on_note=said.append)
    assert len(said) == (1 if word else 0)
    assert not word or f"a.mp4: HDR ({word})" in said[0]
