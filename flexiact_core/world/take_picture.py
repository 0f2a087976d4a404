"""The measure of a video of a take as a picture: the avatar, the true video, the one measured."""

from __future__ import annotations

import torch
from torch import Tensor

from ..plots import draw_lines, draw_over
from ..video import check_measurable
from .scenes import FRAME_PX
from .take_cases import TakeCase
from .take_measure import SeenTake, name_of_scene, overlaps
from .takes import TAKE_FPS, TAKE_FRAMES, render_avatar, render_take

WIDTH_PX = 960


def draw_take_measure(frames: Tensor, case: TakeCase) -> tuple[Tensor, SeenTake, float]:
    """A picture (1, H, W, 3) in 0..1 of how frames follow the avatar of a case, what they show, and how much less of
    another camera's outline.

    frames is (8, 64, 64, 3) in 0..1. Rows: the avatar, the true video, the frames. Below, the outline's overlap in each
    frame, with the avatar's and with that of the same person before another camera.
    Raises ShapeError if the frames are of another number or size.
    """
    frames = check_measurable(frames, TAKE_FRAMES, FRAME_PX, "people")
    own, other = overlaps(frames, case.take), overlaps(frames, case.by_other_camera())
    seen = SeenTake(float(own.mean()), name_of_scene(frames))
    less = seen.overlap - float(other.mean())
    seconds = (torch.arange(TAKE_FRAMES) / TAKE_FPS).tolist()
    series = [
        ("with the avatar's outline", seconds, own.tolist()),
        ("with another camera's", seconds, other.tolist()),
    ]
    title = (
        f"outline's overlap {seen.overlap:.2f}, with another camera's {less:.2f} less; "
        f"scene: {seen.scene or 'none that has a name'}"
    )
    plot = draw_lines(series, title=title, x_label="seconds", width_px=WIDTH_PX)
    videos = [render_avatar(case.take), render_take(case.take), frames]
    return draw_over(plot, videos, TAKE_FRAMES), seen, less
