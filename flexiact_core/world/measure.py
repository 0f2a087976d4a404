"""How well a video shows an action and keeps its subject, read off the pixels.

The scene of the first frame is known, so its colours and its background are: every
pixel of a video is told to be background, lit half or shaded half of the sprite.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from ..metrics.silhouettes import overlap
from .actions import ACTIONS, GROW_FACTOR, PAN_PX, SLIDE_PX, ZOOM_FACTOR, motion_of
from .render import SHADE, Track, render_background, render_clip, render_frames, render_sprite, track_of
from .scenes import SHAPES, Scene

# How sure a pixel has to be, in squared colour distance.
_SOFTNESS = 0.008
# Errors above this, per pixel and channel, are the sprite and say nothing of the camera.
_CAMERA_OUTLIER = 0.02
# Where `Identity.words` change: a subject through the VAE alone is whole, one that melts is not.
WHOLE, CHANGED = 0.6, 0.35
_STRANGE = 0.12  # farther from the background's colour than this is no background
_BLUR_PX = 9  # twice
_GONE = 0.35  # of its radius, and a subject is no longer there
# What a pose that was read off may be wrong by, and is tried in: places and radius in px, angle in degrees.
_POSE_STEPS = {"x": (1.0, 0.5), "y": (1.0, 0.5), "radius": (0.8, 0.4), "angle": (6.0, 3.0)}


@dataclass(frozen=True)
class Identity:
    """How well a video keeps its subject, each averaged over the frames. For likeness and right_shape 1 is perfect,
    for the others, which are errors, 0.

    likeness: how much nearer the edges around the sprite are to the true picture's than those of the true picture
    blurred beyond its shape (sigma 3.7 px): 1 - |edges - true edges|^2 / |blurred edges - true edges|^2, in the pose
    that fits best; not less than 0. Melting, another shape and another colour lower it.
    colour: mean absolute error of the lit and the shaded half's mean colour, 0..1; a half that is gone counts as 1.
    shape: 1 - overlap (IoU) with the true outline in the pose that was read.
    background: mean absolute error outside the sprite, 0..1.
    right_shape: share of frames whose outline fits the true shape best of all shapes.
    """

    colour: float
    shape: float
    background: float
    right_shape: float
    likeness: float

    @property
    def words(self) -> str:
        """What likeness says, in words."""
        if self.likeness >= WHOLE:
            return "the subject is whole"
        return "the subject has changed" if self.likeness >= CHANGED else "the subject is lost"


def read_track(frames: np.ndarray, scene: Scene) -> Track:
    """The Track of a video (T, 64, 64, 3) in 0..1 whose first frame is `scene`."""
    return _read(np.asarray(frames, dtype=np.float32), scene)[0]


def _read(frames: np.ndarray, scene: Scene) -> tuple[Track, np.ndarray, np.ndarray]:
    """The track, and the cover of the lit and the shaded half, each (T, 64, 64)."""
    pan, zoom = _read_camera(frames, scene)
    background = render_background(scene, pan, zoom)
    lit = np.asarray(scene.rgb, dtype=np.float32)
    distance = np.stack([np.square(frames - c).sum(-1) for c in (background, lit, lit * SHADE)])
    share = np.exp(-(distance - distance.min(0)) / _SOFTNESS)
    share /= share.sum(0)
    lit_cover, shaded_cover = share[1] * _near(share[1]), share[2] * _near(share[2])
    cover = lit_cover + shaded_cover
    rows, columns = np.mgrid[0 : frames.shape[1], 0 : frames.shape[2]] + 0.5

    def centre(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        total = weight.sum((1, 2)) + 1e-6
        return (weight * columns).sum((1, 2)) / total, (weight * rows).sum((1, 2)) / total

    x, y = centre(cover)
    lit_x, lit_y = centre(lit_cover)
    shaded_x, shaded_y = centre(shaded_cover)
    track = Track(
        x=x,
        y=y,
        radius=np.sqrt(np.maximum(cover.sum((1, 2)), 1.0) / _unit_area(scene.shape)),
        angle=np.degrees(np.arctan2(-(shaded_x - lit_x), shaded_y - lit_y)),
        pan=pan,
        zoom=zoom,
    )
    return track, lit_cover, shaded_cover


def _near(cover: np.ndarray) -> np.ndarray:
    """1 where at least a third of the 3x3 neighbourhood is covered: drops specks and thin fringes."""
    padded = np.pad(cover, ((0, 0), (1, 1), (1, 1)), mode="edge")
    height, width = cover.shape[1:]
    around = sum(padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)) / 9.0
    return (around > 0.34).astype(cover.dtype)


@lru_cache(maxsize=8)
def _unit_area(shape: str) -> float:
    scene = Scene(shape, "red", 20.0, 32.0, 32.0, "gray", "striped", 32.0, 0.0, 0.0)
    return float(render_sprite(scene, track_of(scene, motion_of(None, 1)))[1].sum()) / 400.0


def _read_camera(frames: np.ndarray, scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Pan (px) and zoom per frame: the background that fits best, searched coarse to fine."""
    pans, zooms = np.meshgrid(np.arange(-14.0, 17.0, 2.0), 1.08 ** np.arange(-3.0, 7.0), indexing="ij")
    seen = frames[:, ::2, ::2]
    bank = render_background(scene, pans.ravel(), zooms.ravel(), step=4)
    pan, zoom = np.zeros(len(frames)), np.ones(len(frames))
    for t in range(len(frames)):
        cost = np.minimum(np.square(bank - seen[t, ::2, ::2]), _CAMERA_OUTLIER).mean((1, 2, 3))
        # Patterns repeat: of equal fits the one near the frame before is meant.
        before_pan, before_zoom = (pan[t - 1], zoom[t - 1]) if t else (0.0, 1.0)
        jump = np.abs(pans.ravel() - before_pan) / 16 + np.abs(np.log(zooms.ravel() / before_zoom))
        best = int(np.argmin(cost + 2e-4 * jump))
        pan[t], zoom[t] = pans.ravel()[best], zooms.ravel()[best]
        step_pan, step_zoom = 1.0, 1.08**0.5
        for _ in range(4):
            near_pans, near_zooms = np.meshgrid(
                pan[t] + step_pan * np.arange(-1, 2), zoom[t] * step_zoom ** np.arange(-1.0, 2.0), indexing="ij"
            )
            near = render_background(scene, near_pans.ravel(), near_zooms.ravel(), step=2)
            cost = np.minimum(np.square(near - seen[t]), _CAMERA_OUTLIER).mean((1, 2, 3))
            best = int(np.argmin(cost))
            pan[t], zoom[t] = near_pans.ravel()[best], near_zooms.ravel()[best]
            step_pan, step_zoom = step_pan / 2, step_zoom**0.5
    return pan, zoom


def features(track: Track, start: Track) -> np.ndarray:
    """The motion of a track against the first frame of `start`: (T, 7), about 1 for a full action in each.

    Columns: x, y, log size, cosine and sine of the angle, pan, log zoom.
    """
    angle, angle0 = np.radians(track.angle), math.radians(start.angle[0])
    return np.stack(
        [
            (track.x - start.x[0]) / SLIDE_PX,
            (track.y - start.y[0]) / SLIDE_PX,
            np.log(track.radius / start.radius[0]) / math.log(GROW_FACTOR),
            (np.cos(angle) - math.cos(angle0)) / 2,
            (np.sin(angle) - math.sin(angle0)) / 2,
            track.pan / PAN_PX,
            np.log(track.zoom) / math.log(ZOOM_FACTOR),
        ],
        axis=1,
    )


@dataclass(frozen=True)
class Ideal:
    """What every action looks like to the measure for one scene: features by action, read off true videos.

    others holds what a turned subject may do instead: stand as it is, or act without coming upright.
    """

    scene: Scene
    start: Track
    motions: dict[str, np.ndarray]
    others: dict[str, np.ndarray]


@lru_cache(maxsize=256)
def ideal_of(scene: Scene, num_frames: int = 17) -> Ideal:
    """The Ideal of a scene over all actions."""
    start = read_track(render_clip(scene, None).frames[:1], scene)

    def seen(frames: np.ndarray) -> np.ndarray:
        return features(read_track(frames[:num_frames], scene), start)

    motions = {name: seen(render_clip(scene, name).frames) for name in ACTIONS}
    others = {}
    if scene.angle:
        others = {f"{name} without coming upright": seen(render_frames(scene, motion_of(name))) for name in ACTIONS}
        others["still"] = seen(render_clip(scene, None).frames)
    return Ideal(scene, start, motions, others)


@dataclass(frozen=True)
class Fidelity:
    """How much of an action a video shows.

    slope: share of the ideal motion, 1 is all, 0 none. cosine: how alike the motions are
    whatever their size, -1..1. nearest: the action whose true video moves most alike. closeness: 1 is the very
    motion, 0 one as far from it as standing still, or farther.
    """

    slope: float
    cosine: float
    nearest: str
    closeness: float


def score(fidelity: Fidelity, identity: Identity) -> float:
    """Action and subject in one number: the geometric mean of closeness and likeness, 0..1. It needs both."""
    return math.sqrt(fidelity.closeness * identity.likeness)


def measure_action(frames: np.ndarray, scene: Scene, action: str) -> Fidelity:
    """The Fidelity of a video (T, 64, 64, 3) in 0..1 to `action` done by `scene`.

    Compared with the true videos of all actions of this very scene.
    """
    return compare_motion(read_track(frames, scene), scene, action)


def compare_motion(track: Track, scene: Scene, action: str) -> Fidelity:
    """The Fidelity of a track that was read from a video of `scene`."""
    ideal = ideal_of(scene)
    motion = features(track, ideal.start)
    true = ideal.motions[action]
    dot, own, other = (motion * true).sum(), np.square(true).sum(), np.square(motion).sum()
    candidates = ideal.motions | ideal.others
    nearest = min(candidates, key=lambda name: float(np.square(motion - candidates[name]).sum()))
    closeness = max(0.0, 1.0 - float(np.square(motion - true).sum() / own))
    return Fidelity(float(dot / own), float(dot / math.sqrt(own * other + 1e-9)), nearest, closeness)


def measure_identity(frames: np.ndarray, scene: Scene) -> Identity:
    """The Identity of a video (T, 64, 64, 3) in 0..1 that should keep the subject of `scene`."""
    frames = np.asarray(frames, dtype=np.float32)
    return _compare_subject(frames, scene, *_read(frames, scene))


def measure_video(frames: np.ndarray, scene: Scene, action: str) -> tuple[Fidelity, Identity]:
    """What `measure_action` and `measure_identity` say, the video read once."""
    frames = np.asarray(frames, dtype=np.float32)
    track, lit_cover, shaded_cover = _read(frames, scene)
    subject = _compare_subject(frames, scene, track, lit_cover, shaded_cover)
    return compare_motion(track, scene, action), subject


def _compare_subject(frames, scene: Scene, track: Track, lit_cover, shaded_cover) -> Identity:
    seen = lit_cover + shaded_cover > 0.5
    background = render_background(scene, track.pan, track.zoom)
    colour, drawn_cover = render_sprite(scene, track)
    true = background + drawn_cover[..., None] * (colour - background)
    colour_errors = []
    for cover in (lit_cover, shaded_cover):
        # Compared with the true picture in the same pose and at the same pixels: soft edges then cancel out.
        core = (cover > 0.9)[..., None]
        error = ((frames - true) * core).sum((1, 2)) / np.maximum(core.sum((1, 2)), 1)
        colour_errors.append(np.where(core.any((1, 2)), np.abs(error), 1.0).mean())
    overlaps = {}
    for shape in SHAPES:
        # Each shape gets the size at which it covers as much as was read.
        size = track.radius * math.sqrt(_unit_area(scene.shape) / _unit_area(shape))
        pose = Track(track.x, track.y, size, track.angle, track.pan, track.zoom)
        drawn = render_sprite(replace(scene, shape=shape), pose)[1] > 0.5
        overlaps[shape] = overlap(drawn, seen)
    best = np.max([overlaps[shape] for shape in SHAPES], axis=0)
    pose = Track(track.x, track.y, track.radius + 3.0, track.angle, track.pan, track.zoom)
    outside = (render_sprite(scene, pose)[1] < 0.5)[..., None]
    background_error = (np.abs(frames - background) * outside).sum() / (3 * outside.sum())
    return Identity(
        colour=float(np.mean(colour_errors)),
        shape=float(1.0 - overlaps[scene.shape].mean()),
        background=float(background_error),
        right_shape=float((overlaps[scene.shape] >= best).mean()),
        likeness=_likeness(frames, scene, track, background),
    )


def _likeness(frames: np.ndarray, scene: Scene, track: Track, background: np.ndarray) -> float:
    """Identity.likeness. The pose is tried around what was read, since a melted outline is read too large."""
    grown = replace(track, radius=track.radius + 4.0)
    # Where the subject is, and where anything else is that is no background.
    around = render_sprite(scene, grown)[1] > 0.5
    around |= np.abs(_smooth(frames - background)).max(-1) > _STRANGE
    edges = _edges(frames)

    def draw(pose: Track) -> np.ndarray:
        colour, cover = render_sprite(scene, pose)
        return background + cover[..., None] * (colour - background)

    def errors(pose: Track, shown: np.ndarray) -> np.ndarray:
        return (around * np.square(shown - _edges(draw(pose))).sum((0, -1))).sum((1, 2))

    best = errors(track, edges)
    for round_ in (0, 1):
        for field, steps in _POSE_STEPS.items():
            for step in (-steps[round_], steps[round_]):
                tried = replace(track, **{field: getattr(track, field) + step})
                found = errors(tried, edges)
                kept = np.where(found < best, getattr(tried, field), getattr(track, field))
                track, best = replace(track, **{field: kept}), np.minimum(found, best)
    blur = errors(track, _edges(_smooth(_smooth(draw(track), _BLUR_PX), _BLUR_PX)))
    gone = track.radius < _GONE * scene.radius
    return float(np.where(gone, 0.0, np.maximum(1.0 - best / np.maximum(blur, 1e-6), 0.0)).mean())


def _smooth(frames: np.ndarray, size_px: int = 3) -> np.ndarray:
    """Each pixel of (T, H, W, C) as the mean of the square around it, so that noise is no edge."""
    for axis in (1, 2):
        padding = [(size_px // 2,) * 2 if a == axis else (0, 0) for a in range(4)]
        padded, size = np.pad(frames, padding, mode="edge"), frames.shape[axis]
        frames = sum(np.take(padded, range(i, i + size), axis) for i in range(size_px)) / size_px
    return frames


def _edges(frames: np.ndarray) -> np.ndarray:
    smooth = _smooth(frames)
    return np.stack([np.diff(smooth, axis=axis, append=np.take(smooth, [-1], axis)) for axis in (1, 2)])
