"""The measure of a video of the people's world as a picture: the true video, the one measured, the driving pose."""

from __future__ import annotations

import torch
from torch import Tensor

from ..plots import draw_lines, draw_over
from ..video import check_measurable
from .actor_cases import ActorCase, driving
from .actor_measure import READ, Seen, measure_actor, read_joints, true_joints
from .actor_render import render_actor
from .actors import FPS, FRAME_PX, NUM_FRAMES

WIDTH_PX = 960


def draw_actor_measure(frames: Tensor, case: ActorCase) -> tuple[Tensor, Seen]:
    """A picture (1, H, W, 3) in 0..1, and the numbers in it, of how frames follow the driving pose of a case.

    frames is (21, 64, 64, 3) in 0..1. Rows: the driving pose, the true video, the frames. Below, how far each joint
    that can be read is from its place, in shares of the body's height.
    Raises ShapeError if the frames are of another number or size.
    """
    frames = check_measurable(frames, NUM_FRAMES, FRAME_PX, "people")
    seen = measure_actor(frames, case.actor, case.performance)
    points, found = read_joints(frames, case.actor)
    true, shown = true_joints(case.actor, case.performance)
    apart = (points - true).norm(dim=-1) / case.actor.height
    series = []
    for number, name in enumerate(READ):
        moments = torch.nonzero(found[:, number] & shown[:, number])[:, 0]
        series.append((name.replace("_", " "), (moments / FPS).tolist(), apart[moments, number].tolist()))
    title = (
        f"{case.action}: {seen.follow:.0%} of the joints near their place, limbs' slope {seen.limbs:.2f}, looks most "
        f"like {seen.nearest}"
    )
    plot = draw_lines(series, title=title, x_label="seconds", width_px=WIDTH_PX)
    true_video = render_actor(case.actor, case.performance)
    return draw_over(plot, [driving(case), true_video, frames], frames_each=9), seen
