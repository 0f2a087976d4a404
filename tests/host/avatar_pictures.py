"""The picture of the people that ship, doing each of their clips: drawn anew with the others by tests.host.pictures."""

from __future__ import annotations

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from flexiact_core.avatars.camera import Camera, look_rotation
from flexiact_core.avatars.scene import Scene, place_avatar, render_scene
from flexiact_core.avatars.shipped import CLIPS, SHIPPED, shipped_avatar
from flexiact_core.plots import TEXT

# Seconds into each clip at which it is told best.
MOMENTS = {"walk": 0.05, "wave": 1.1, "jump": 0.8, "sit": 2.0, "turn": 0.7, "dance": 1.1}
TILE_PX, LABEL_PX = (112, 144), 18
POSITION, TARGET = (0.0, 1.4, 6.2), (0.0, 1.15, 0.0)


def draw_people() -> Image.Image:
    """Both people in a moment of each clip, the clips' names above."""
    rows = [torch.cat([_moment(name, clip) for clip in CLIPS], 1) for name in SHIPPED]
    pixels = (torch.cat(rows) * 255).round().byte().numpy()
    picture = Image.new("RGB", (pixels.shape[1], pixels.shape[0] + LABEL_PX))
    picture.paste(Image.fromarray(pixels), (0, LABEL_PX))
    draw = ImageDraw.Draw(picture)
    for column, clip in enumerate(CLIPS):
        draw.text(((column + 0.5) * TILE_PX[0], LABEL_PX / 2), clip, TEXT, anchor="mm")
    return picture


def _moment(name: str, clip: str) -> Tensor:
    placed = place_avatar(shipped_avatar(name), clip=clip, start=MOMENTS[clip], turn=25, fit=False)
    camera = Camera(POSITION, TARGET, look_rotation(POSITION, TARGET), fov=20)
    film = render_scene(Scene((placed,)), camera=camera, num_frames=1, width=TILE_PX[0], height=TILE_PX[1], antialias=4)
    return film.frames[0]
