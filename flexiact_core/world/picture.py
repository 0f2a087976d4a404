"""The measure as a picture: the true video, the one measured, and both motions over time."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..plots import draw_lines, draw_over
from ..video import check_measurable
from .actions import NUM_FRAMES
from .measure import Fidelity, Identity, features, ideal_of, measure_video, read_track, score
from .render import render_clip
from .scenes import FRAME_PX, Scene
from .shipped import FPS

QUANTITIES = ("x", "y", "size", "angle (cos)", "angle (sin)", "camera pan", "camera zoom")
WIDTH_PX = 960
# Columns of features() that an action moves by less are not drawn: they are its rest.
_AT_REST = 0.15


def draw_measure(frames: Tensor, scene: Scene, action: str) -> tuple[Tensor, Fidelity, Identity]:
    """A picture (1, H, W, 3) in 0..1, and the numbers in it, of how well frames show an action done by a scene.

    frames is (17, 64, 64, 3) in 0..1. The first row is the true video, the second the frames. Below, each quantity
    that the action moves: as it should be, and as it was read off the pixels; 1 is about a full action.
    Raises ShapeError if the frames are of another number or size.
    """
    frames = check_measurable(frames, NUM_FRAMES, FRAME_PX, "world")
    pixels = frames.numpy()
    fidelity, identity = measure_video(pixels, scene, action)
    ideal = ideal_of(scene)
    true, measured = ideal.motions[action], features(read_track(pixels, scene), ideal.start)
    moving = np.flatnonzero(np.abs(true).max(axis=0) > _AT_REST)
    series = []
    for column in moving:
        seconds = (np.arange(NUM_FRAMES) / FPS).tolist()
        series.append((f"{QUANTITIES[column]}, true", seconds, true[:, column].tolist()))
        series.append((f"{QUANTITIES[column]}, read", seconds, measured[:, column].tolist()))
    title = (
        f"{action}: slope {fidelity.slope:.2f}, cosine {fidelity.cosine:.2f}, looks most like {fidelity.nearest}; "
        f"{identity.words} ({identity.likeness:.2f}); score {score(fidelity, identity):.2f}"
    )
    plot = draw_lines(series, title=title, x_label="seconds", width_px=WIDTH_PX)
    true_video = torch.from_numpy(render_clip(scene, action).frames)
    return draw_over(plot, [true_video, frames], frames_each=9), fidelity, identity
