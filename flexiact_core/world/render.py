"""Scene and motion to pixels, and the ground truth that belongs to them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .actions import Motion, from_pose, motion_of
from .scenes import FRAME_PX, TONES, Scene, caption

# Felt rather than cut out: a VAE this small keeps soft outlines in place and lets hard ones smear.
EDGE_PX = 4.0
PATTERN_CONTRAST = 0.09
STONE_CONTRAST = 0.15
SHADE = 0.55  # of the lower half, so that a turn shows on every shape


@dataclass(frozen=True)
class Track:
    """Ground truth per frame as seen on the screen; every field has shape (T,).

    x, y: sprite centre, px. radius: px. angle: degrees, clockwise.
    pan: camera displacement to the right, px. zoom: camera zoom.
    """

    x: np.ndarray
    y: np.ndarray
    radius: np.ndarray
    angle: np.ndarray
    pan: np.ndarray
    zoom: np.ndarray


@dataclass(frozen=True)
class Clip:
    """frames (T, 64, 64, 3) float32 in 0..1, its caption, and the Track that made it."""

    frames: np.ndarray
    caption: str
    track: Track


def track_of(scene: Scene, motion: Motion) -> Track:
    """Where `scene`'s sprite is on the screen in every frame of `motion`."""
    centre = FRAME_PX / 2
    return Track(
        x=centre + motion.zoom * (scene.x + motion.dx - motion.pan - centre),
        y=centre + motion.zoom * (scene.y + motion.dy - centre),
        radius=scene.radius * motion.scale * motion.zoom,
        angle=scene.angle + motion.angle,
        pan=motion.pan.copy(),
        zoom=motion.zoom.copy(),
    )


def _distance(shape: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Signed distance to the outline, negative inside, for a sprite of radius 1; y down."""
    if shape == "circle":
        return np.hypot(x, y) - 1.0
    if shape == "square":
        dx, dy = np.abs(x) - 0.88, np.abs(y) - 0.88
        return np.hypot(np.maximum(dx, 0), np.maximum(dy, 0)) + np.minimum(np.maximum(dx, dy), 0)
    if shape == "triangle":
        # Three half planes; the inradius puts the corners at 1.24.
        side = math.sqrt(3) / 2
        return np.maximum(y, np.maximum(side * x, -side * x) - 0.5 * y) - 0.62
    if shape == "cross":
        dx, dy = np.abs(x), np.abs(y)
        return np.minimum(np.maximum(dx - 1.08, dy - 0.40), np.maximum(dx - 0.40, dy - 1.08))
    raise ValueError(f"no shape is called {shape!r}; there are circle, square, triangle and cross.")


def _grid(step: int = 1) -> tuple[np.ndarray, np.ndarray]:
    centres = np.arange(0, FRAME_PX, step) + 0.5
    return np.meshgrid(centres, centres, indexing="xy")


def render_background(scene: Scene, pan: np.ndarray, zoom: np.ndarray, step: int = 1) -> np.ndarray:
    """The background alone under N camera states: (N, 64, 64, 3) float32 in 0..1.

    step: only every step-th row and column is drawn, which gives (N, 64 / step, 64 / step, 3).
    """
    pan, zoom = (np.asarray(v, dtype=np.float64)[:, None, None] for v in (pan, zoom))
    u, v = _grid(step)
    centre = FRAME_PX / 2
    world_x, world_y = centre + (u - centre) / zoom + pan, centre + (v - centre) / zoom
    turn = 2 * math.pi / scene.pattern_px
    x = turn * world_x + 2 * math.pi * scene.phase_x
    y = turn * world_y + 2 * math.pi * scene.phase_y
    if scene.pattern == "striped":
        wave = np.sin(0.8 * x + 0.6 * y)
    elif scene.pattern == "dotted":
        wave = 0.5 * np.sin(x) + 0.5 * np.sin(y)
        wave = 2.0 * np.maximum(wave, -0.2) - 0.6
    elif scene.pattern == "checkered":
        wave = np.tanh(2.0 * np.sin(x) * np.sin(y))
    else:
        raise ValueError(f"no pattern is called {scene.pattern!r}.")
    light = PATTERN_CONTRAST * wave
    for stone_x, stone_y, radius, lightness in scene.stones:
        away = np.hypot(world_x - stone_x, world_y - stone_y) - radius
        cover = np.clip(0.5 - away * zoom / EDGE_PX, 0.0, 1.0)
        light += cover * (STONE_CONTRAST * lightness - light)
    return (np.asarray(TONES[scene.tone]) + light[..., None]).astype(np.float32)


def render_sprite(scene: Scene, track: Track) -> tuple[np.ndarray, np.ndarray]:
    """The sprite's colour (T, 64, 64, 3) and its cover (T, 64, 64), both float32 in 0..1."""
    u, v = _grid()
    column = (slice(None), None, None)
    du, dv = u - track.x[column], v - track.y[column]
    turn = np.radians(track.angle)[column]
    radius = track.radius[column]
    x = (np.cos(turn) * du + np.sin(turn) * dv) / radius
    y = (-np.sin(turn) * du + np.cos(turn) * dv) / radius
    cover = np.clip(0.5 - _distance(scene.shape, x, y) * radius / EDGE_PX, 0.0, 1.0)
    lower = np.clip(0.5 + y * radius / EDGE_PX, 0.0, 1.0)[..., None]
    colour = np.asarray(scene.rgb) * (1.0 - (1.0 - SHADE) * lower)
    return colour.astype(np.float32), cover.astype(np.float32)


def render_frames(scene: Scene, motion: Motion) -> np.ndarray:
    """The clip of `scene` doing `motion`: (T, 64, 64, 3) float32 in 0..1."""
    track = track_of(scene, motion)
    background = render_background(scene, track.pan, track.zoom)
    colour, cover = render_sprite(scene, track)
    return background + cover[..., None] * (colour - background)


def render_clip(scene: Scene, action: str | None, word: bool = False) -> Clip:
    """`scene` doing `action`, as a Clip; None stands still. A turned subject comes upright as the action begins.

    word: whether the caption names the action.
    """
    motion = from_pose(motion_of(action), scene.angle if action else 0.0)
    words = caption(scene, action if word else None)
    return Clip(frames=render_frames(scene, motion), caption=words, track=track_of(scene, motion))


def sprite_mask(scene: Scene, track: Track, margin_px: float = 2.0) -> np.ndarray:
    """Where the sprite is, with a margin around it: bool (T, 64, 64)."""
    grown = Track(track.x, track.y, track.radius + margin_px, track.angle, track.pan, track.zoom)
    return render_sprite(scene, grown)[1] > 0.5
