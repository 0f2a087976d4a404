"""Several avatars in one world: where they stand, what they do when, and a film of it through a camera.

Letters: F frames, V vertices, K joints of a pose.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import SettingError
from ..poses.sequence import PoseSequence
from ..poses.skeletons import OPENPOSE18
from .avatar import Avatar
from .camera import Camera, framing_camera, move_camera
from .colours import to_linear
from .joints import NAMES, Body, find_body, place_joints, see_joints
from .pose import joint_matrices, local_matrices, node_matrices, skin
from .raster import Mesh, draw, is_inside, joined

FITTED_HEIGHT = 1.7  # metres, of "fit"
# Pixels of all frames together: 16 bytes each are kept.
MAX_PIXELS = 400_000_000


@dataclass(frozen=True, eq=False)
class Placement:
    """One avatar in a scene: `matrix` (4, 4) puts its model into the world.

    clip is the clip's name, empty for the first; at frame time t the clip shows start + t * speed seconds, again from
    its beginning (loop) or held at its end. tint (3 numbers, linear 0..1) multiplies all of its colours.
    """

    avatar: Avatar
    matrix: Tensor
    clip: str = ""
    start: float = 0.0
    speed: float = 1.0
    loop: bool = True
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def nodes_at(self, seconds: Tensor) -> Tensor:
        """Where the skeleton's nodes are in the world at `seconds` (F,): (F, M, 4, 4)."""
        clip = self.avatar.clip(self.clip)
        at = self.start + seconds * self.speed
        if clip and self.loop and clip.duration > 0:
            at = at.remainder(clip.duration)
        return self.matrix @ node_matrices(self.avatar.skeleton, clip, at)


@dataclass(frozen=True, eq=False)
class Scene:
    """The avatars of a scene, in the order they were placed."""

    placements: tuple[Placement, ...] = ()

    def with_avatar(self, placement: Placement) -> Scene:
        """A new scene with one avatar more; this one is left as it is."""
        return replace(self, placements=(*self.placements, placement))


@dataclass(frozen=True, eq=False)
class Film:
    """What render_scene gives: frames (F, H, W, 3) in sRGB, masks (F, H, W), both 0..1; the camera of each frame; the
    people's joints; notes, what the user should know, in one sentence each."""

    frames: Tensor
    masks: Tensor
    cameras: tuple[Camera, ...]
    poses: PoseSequence
    notes: tuple[str, ...]


def place_avatar(
    avatar: Avatar,
    *,
    clip: str = "",
    x: float = 0.0,
    z: float = 0.0,
    turn: float = 0.0,
    scale: float = 1.0,
    fit: bool = True,
    viewer: Sequence[Mapping] | None = None,
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0),
    **timing,
) -> Placement:
    """An avatar standing at x, z (metres; z towards the viewer), turned by `turn` degrees to its left about Y.

    fit makes it 1.7 m tall, feet on the ground, and stands up a model that lies on its back (Z up); then scale
    multiplies. viewer, ComfyUI's LOAD3D_MODEL_INFO, takes the place of fit: where the 3D viewer shows the model.
    tint, sRGB 0..1, multiplies its colours; timing is Placement's start, speed and loop.
    Raises SettingError for an unknown clip, and for a scale or speed that is not over 0.
    """
    avatar.clip(clip)
    if not (math.isfinite(scale) and scale > 0 and timing.get("speed", 1.0) > 0):
        raise SettingError(f"{avatar.name}: scale and speed must be over 0; scale is {scale:g}.")
    placed = local_matrices(torch.tensor([x, 0.0, z]), _turned(math.radians(turn)), torch.full((3,), float(scale)))
    own = _viewer_matrix(viewer[0]) if viewer else _fitting(avatar) if fit else torch.eye(4)
    linear = tuple(to_linear(torch.tensor(tint)).tolist())
    return Placement(avatar, placed @ own, clip, tint=linear, **timing)


def render_scene(
    scene: Scene,
    *,
    camera: Camera | None = None,
    move: str = "still",
    amount: float = 0.0,
    num_frames: int = 16,
    fps: float = 8.0,
    width: int = 256,
    height: int = 256,
    antialias: int = 2,
    background: tuple[float, float, float] = (0.0, 0.0, 0.0),
    light: float = 0.6,
    on_step: Callable[[int, Tensor], None] | None = None,
    device: torch.device | str = "cpu",
) -> Film:
    """Draws `num_frames` frames of the scene, `fps` a second, on `device`; the film lies on the CPU.

    camera None: one in front that shows all avatars over the whole clip. move and amount are move_camera's; the other
    settings are draw's. on_step(i, frame (H, W, 3)) is called after each frame and may raise to stop.
    Raises SettingError for a scene without avatars, over 400 million pixels in all, or a camera inside an avatar.
    """
    _check_scene(scene, num_frames, width, height)
    nodes = [placement.nodes_at(torch.arange(num_frames) / fps) for placement in scene.placements]
    shot = _Shot(scene, nodes, device)
    if camera is None:
        camera = framing_camera(shot.extent(), width, height, orbit=amount if move == "orbit" else 0.0)
    cameras = move_camera(camera, move, amount, num_frames)
    frames, masks = torch.empty(num_frames, height, width, 3), torch.empty(num_frames, height, width)
    look = {"background": background, "light": light, "antialias": antialias}
    for index, view in enumerate(cameras):
        frame, mask = draw(shot.mesh, *shot.at(index, view), view, width, height, **look)
        frames[index], masks[index] = frame.cpu(), mask.cpu()
        if on_step:
            on_step(index, frames[index])
    poses, notes = _poses(scene, nodes, cameras, width, height, fps)
    notes += [f"{p.avatar.name}: {note}" for p in scene.placements for note in p.avatar.notes]
    return Film(frames, masks, cameras, poses, tuple(dict.fromkeys(notes + _emptiness(masks))))


def _check_scene(scene: Scene, num_frames: int, width: int, height: int) -> None:
    if not scene.placements:
        raise SettingError("The scene has no avatar. Connect a Place Avatar node.")
    if num_frames * width * height > MAX_PIXELS:
        raise SettingError(
            f"{num_frames} frames of {width}x{height} are over {MAX_PIXELS // 10**6} million pixels, which takes more "
            "than 6 GB. Render fewer or smaller frames."
        )


class _Shot:
    """The avatars of a scene ready to be skinned frame by frame."""

    def __init__(self, scene: Scene, nodes: list[Tensor], device: torch.device | str):
        self.avatars = [placement.avatar.to(device) for placement in scene.placements]
        self.matrices = [joint_matrices(a, n).to(device) for a, n in zip(self.avatars, nodes)]
        tints = [torch.tensor(placement.tint, device=device) for placement in scene.placements]
        parts = [
            Mesh(a.faces, a.colours * tint, a.uvs, a.face_material, a.materials) for a, tint in zip(self.avatars, tints)
        ]
        self.mesh = joined(parts)

    def at(self, frame: int, camera: Camera | None = None) -> tuple[Tensor, Tensor]:
        """Points and normals (V, 3) of all avatars in one frame. Raises SettingError if the camera is inside one."""
        skinned = [skin(avatar, matrices[frame]) for avatar, matrices in zip(self.avatars, self.matrices)]
        points = torch.cat([points for points, _ in skinned])
        if camera:
            self._check_outside(camera, points, frame)
        return points, torch.cat([normals for _, normals in skinned])

    def extent(self) -> Tensor:
        """(F, P, 3): points of all avatars in each frame, some thousands, evenly taken."""
        step = max(1, len(self.mesh.colours) // 8000)
        return torch.stack([self.at(frame)[0][::step].cpu() for frame in range(len(self.matrices[0]))])

    def _check_outside(self, camera: Camera, points: Tensor, frame: int) -> None:
        start = first = 0
        for avatar in self.avatars:
            own = points[start : start + len(avatar.vertices)]
            place = torch.tensor(camera.position).to(own)
            if ((place > own.amin(0)) & (place < own.amax(0))).all() and is_inside(camera.position, own, avatar.faces):
                raise SettingError(
                    f"In frame {frame} the camera is inside {avatar.name} (avatar {first}). Move it away, or let its "
                    "path be shorter."
                )
            start, first = start + len(own), first + 1


def _poses(
    scene: Scene, nodes: list[Tensor], cameras: tuple[Camera, ...], width: int, height: int, fps: float
) -> tuple[PoseSequence, list[str]]:
    """The joints of all avatars, one person each, and which avatars have none."""
    found: list[tuple[Tensor, Tensor]] = []
    notes = []
    bodies: dict[int, Body | None] = {}
    for placement, matrices in zip(scene.placements, nodes):
        key = id(placement.avatar)
        if key not in bodies:
            bodies[key] = find_body(placement.avatar)
        body = bodies[key]
        if body is None:
            notes.append(f"{placement.avatar.name}: no human skeleton by its bones' names, so it has no pose.")
            found.append((torch.zeros(len(cameras), len(NAMES), 2), torch.zeros(len(cameras), len(NAMES))))
            continue
        places, known = place_joints(body, matrices)
        heads = None if body.head is None else matrices[:, body.head, :3, :3]
        found.append(see_joints(body, places, known, heads, cameras, width, height))
    points, scores = (torch.stack(values, 1) for values in zip(*found))
    return PoseSequence(points, scores, (width, height), fps, OPENPOSE18), notes


def _emptiness(masks: Tensor) -> list[str]:
    empty = (masks.amax((1, 2)) == 0).nonzero()[:, 0].tolist()
    if not empty:
        return []
    which = "any frame" if len(empty) == len(masks) else f"frames {', '.join(map(str, empty[:8]))}"
    return [f"No avatar is in view in {which}: only the background is drawn. Turn or move the camera."]


def _turned(angle: float) -> Tensor:
    return torch.tensor([0.0, math.sin(angle / 2), 0.0, math.cos(angle / 2)])


def _fitting(avatar: Avatar) -> Tensor:
    """The matrix that stands a model at rest on the ground, 1.7 m tall, in the middle."""
    points, _ = skin(avatar.to("cpu"), joint_matrices(avatar, node_matrices(avatar.skeleton, None, torch.zeros(1)))[0])
    upright = torch.eye(4)
    size = points.amax(0) - points.amin(0)
    # A person who is deeper than tall, and more so than wide, was exported with Z up.
    if size[2] > 1.5 * size[1] and size[2] > size[0]:
        upright = local_matrices(torch.zeros(3), torch.tensor([-(0.5**0.5), 0.0, 0.0, 0.5**0.5]), torch.ones(3))
        points = points @ upright[:3, :3].T
    low, high = points.amin(0), points.amax(0)
    scale = FITTED_HEIGHT / float((high[1] - low[1]).clamp_min(1e-9))
    middle = (low + high) / 2
    moved = local_matrices(
        -scale * torch.stack([middle[0], low[1], middle[2]]),
        torch.tensor([0.0, 0.0, 0.0, 1.0]),
        torch.full((3,), scale),
    )
    return moved @ upright


def _viewer_matrix(info: Mapping) -> Tensor:
    """The transform of ComfyUI's 3D viewer: position, quaternion, scale, each with x, y, z."""
    try:
        position, scale = ([float(info[key][axis]) for axis in "xyz"] for key in ("position", "scale"))
        quaternion = torch.tensor([float(info["quaternion"][axis]) for axis in "xyzw"])
    except (KeyError, TypeError, ValueError) as error:
        raise SettingError("model_3d_info lacks position, quaternion or scale. Connect Load 3D's output.") from error
    if not quaternion.norm() > 1e-6:
        raise SettingError("model_3d_info has a zero quaternion. Load the model in the viewer anew.")
    return local_matrices(torch.tensor(position), quaternion / quaternion.norm(), torch.tensor(scale))
