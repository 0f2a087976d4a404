"""A camera and its moves. It knows no model: anything that stands in a right-handed space with Y up can be looked at.

The convention is ComfyUI's LOAD3D_CAMERA and its Render Splat node: the camera looks down its own -Z, the field of view
is over the smaller side of the picture, and an orthographic camera shows at the target's distance what a perspective
one would.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import SettingError
from .pose import rotation_matrices

Vector = tuple[float, float, float]
MOVES = ("still", "orbit", "dolly", "truck", "crane", "zoom")


@dataclass(frozen=True)
class Camera:
    """Where a camera stands, how it is turned, and how it projects.

    position and target are in scene units; quaternion is the camera's rotation in the world, x y z w. fov is in
    degrees, over 0 and under 180, over the smaller side of the picture; zoom multiplies the focal length; near and far
    are distances along the view. Raises SettingError if made with numbers that show nothing.
    """

    position: Vector = (0.0, 1.0, 4.0)
    target: Vector = (0.0, 1.0, 0.0)
    quaternion: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 1.0)
    fov: float = 35.0
    zoom: float = 1.0
    orthographic: bool = False
    near: float = 0.01
    far: float = 10000.0

    def __post_init__(self):
        numbers = (*self.position, *self.target, *self.quaternion, self.fov, self.zoom, self.near, self.far)
        if not all(math.isfinite(number) for number in numbers):
            raise SettingError("The camera has a number that is not finite. Set it anew in the viewer.")
        if not 0 < self.fov < 180:
            raise SettingError(f"The camera's field of view is {self.fov:g} degrees; over 0 and under 180 is needed.")
        if self.zoom <= 0:
            raise SettingError(f"The camera's zoom is {self.zoom:g}; it must be over 0, 1 shows all of it.")
        if not 0 < self.near < self.far:
            raise SettingError(
                f"The camera shows what is {self.near:g} to {self.far:g} away; near must be over 0 and less than far."
            )
        if math.hypot(*self.quaternion) < 1e-6:
            raise SettingError("The camera's quaternion is zero, so it looks nowhere. 0, 0, 0, 1 looks along -Z.")

    @property
    def axes(self) -> Tensor:
        """(3, 3): the camera's right, up and backward directions in the world, one a column."""
        quaternion = torch.tensor(self.quaternion, dtype=torch.float64)
        return rotation_matrices(quaternion / quaternion.norm())

    def view(self, points: Tensor) -> Tensor:
        """Points (..., 3) of the world as the camera has them: right, up, and distance along the view."""
        axes = (self.axes * torch.tensor([1.0, 1.0, -1.0])).to(points)
        return (points - torch.tensor(self.position).to(points)) @ axes

    def focal_px(self, width: int, height: int) -> float:
        """Pixels that one unit takes at distance 1 (perspective), or anywhere (orthographic)."""
        focal = min(width, height) / 2 / math.tan(math.radians(self.fov) / 2) * self.zoom
        distance = math.dist(self.position, self.target)
        return focal / max(distance, 1e-6) if self.orthographic else focal

    def project(self, points: Tensor, width: int, height: int) -> Tensor:
        """Points (..., 3) of the world in the picture: x and y in pixels, and distance along the view; (..., 3).

        x runs right and y down from the picture's upper left corner; the middle of the first pixel is 0.5, 0.5.
        Points behind the camera get a place that means nothing: look at the distance first.
        """
        return self.to_pixels(self.view(points), width, height)

    def to_pixels(self, seen: Tensor, width: int, height: int) -> Tensor:
        """What view() gave (..., 3), in the picture: x and y in pixels, and the distance as it was."""
        right, up, distance = seen.unbind(-1)
        scale = self.focal_px(width, height)
        if not self.orthographic:
            scale = scale / torch.where(distance.abs() < 1e-9, torch.full_like(distance, 1e-9), distance)
        return torch.stack([width / 2 + right * scale, height / 2 - up * scale, distance], -1)

    def to_dict(self, width: int, height: int) -> dict:
        """The camera as ComfyUI's LOAD3D_CAMERA has it."""
        x, y, z, w = self.quaternion
        return {
            "position": _named(self.position),
            "target": _named(self.target),
            "quaternion": {"x": x, "y": y, "z": z, "w": w},
            "fov": self.fov,
            "zoom": self.zoom,
            "cameraType": "orthographic" if self.orthographic else "perspective",
            "aspect": width / height,
            "near": self.near,
            "far": self.far,
        }


def camera_from_dict(info: Mapping) -> Camera:
    """The camera of a LOAD3D_CAMERA value, as ComfyUI's 3D viewer and Create Camera Info give it.

    Without a quaternion it looks at the target with Y up. Raises SettingError for a value that is no camera, or shows
    nothing: a field of view of 0 or 180, near past far, a zero quaternion, numbers that are not finite.
    """
    if not isinstance(info, Mapping) or "position" not in info:
        raise SettingError("camera_info has no position: connect a camera of the 3D viewer or of Create Camera Info.")
    position, target = _vector(info, "position"), _vector(info, "target")
    turned = info.get("quaternion") or None
    if turned is not None and not isinstance(turned, Mapping):
        raise SettingError(f"The camera's quaternion is {str(turned)[:40]}: x, y, z and w are needed.")
    if turned is None and math.dist(position, target) < 1e-6:
        raise SettingError("The camera stands on its target, so it looks nowhere. Move one of them.")
    return Camera(
        position,
        target,
        tuple(_number(turned.get(axis, 0.0), "quaternion") for axis in "xyzw")
        if turned
        else look_rotation(position, target),
        # The viewer leaves it out for an orthographic camera; 35 is what ComfyUI then takes.
        fov=_number(info["fov"] if info.get("fov") is not None else 35.0, "fov"),
        zoom=_number(info.get("zoom", 1.0), "zoom"),
        orthographic=str(info.get("cameraType", "")).lower().startswith("ortho"),
        near=_number(info.get("near", 0.01), "near"),
        far=_number(info.get("far", 10000.0), "far"),
    )


def look_rotation(position: Vector, target: Vector) -> tuple[float, float, float, float]:
    """The quaternion x y z w of a camera at `position` that looks at `target`, Y up (Z up when it looks straight down).

    It is that of three.js' lookAt, which ComfyUI's viewer uses.
    """
    back = torch.tensor(position, dtype=torch.float64) - torch.tensor(target, dtype=torch.float64)
    back = back / back.norm().clamp_min(1e-12)
    above = torch.tensor([0.0, 1.0, 0.0] if abs(float(back[1])) <= 0.999 else [0.0, 0.0, 1.0], dtype=torch.float64)
    right = torch.linalg.cross(above, back)
    right = right / right.norm().clamp_min(1e-12)
    from scipy.spatial.transform import Rotation

    axes = torch.stack([right, torch.linalg.cross(back, right), back], 1)
    return tuple(float(x) for x in Rotation.from_matrix(axes.numpy()).as_quat())


def move_camera(camera: Camera, move: str, amount: float, num_frames: int) -> tuple[Camera, ...]:
    """The camera in each of `num_frames` frames; the first is `camera`, the last has moved by `amount`, evenly between.

    orbit: degrees to the right around the target, about the world's Y. dolly: units along the view. truck: units to
    the camera's right. crane: units up, along the world's Y; these three keep the direction of the view. zoom: the
    factor by which things have grown at the end. Raises SettingError for an unknown move, or a zoom of 0 or less.
    """
    if move not in MOVES:
        raise SettingError(f"'{move}' is no camera move. There are: {', '.join(MOVES)}.")
    if not math.isfinite(amount) or num_frames < 1:
        raise SettingError(f"A camera move of {amount:g} over {num_frames} frames cannot be made.")
    if move == "zoom" and amount <= 0:
        raise SettingError(f"A zoom by {amount:g} shows nothing: 2 ends twice as large, 0.5 half as large.")
    shares = [index / max(num_frames - 1, 1) for index in range(num_frames)]
    return tuple(_moved(camera, move, amount, share) for share in shares)


def _moved(camera: Camera, move: str, amount: float, share: float) -> Camera:
    if move == "still" or share == 0:
        return camera
    if move == "zoom":
        return replace(camera, zoom=camera.zoom * amount**share)
    if move == "orbit":
        return _orbited(camera, math.radians(amount * share))
    right, _, back = (tuple(float(x) for x in column) for column in camera.axes.T)
    way = {"truck": right, "crane": (0.0, 1.0, 0.0), "dolly": tuple(-x for x in back)}[move]
    step = tuple(amount * share * x for x in way)
    position, target = _plus(camera.position, step), _plus(camera.target, step)
    # A dolly leaves the target where it is: an orthographic camera then grows what it comes near to.
    return replace(camera, position=position, target=camera.target if move == "dolly" else target)


def _orbited(camera: Camera, angle: float) -> Camera:
    """Turned about the world's Y through the target: position and rotation together, so roll stays."""
    from scipy.spatial.transform import Rotation

    turn = Rotation.from_euler("y", angle)
    arm = turn.apply([a - b for a, b in zip(camera.position, camera.target)])
    quaternion = (turn * Rotation.from_quat(camera.quaternion)).as_quat()
    position = _plus(camera.target, tuple(float(x) for x in arm))
    return replace(camera, position=position, quaternion=tuple(float(x) for x in quaternion))


def framing_camera(points: Tensor, width: int, height: int, *, fov: float = 35.0, orbit: float = 0.0) -> Camera:
    """A camera in front of `points` (F, P, 3) on +Z that shows all of them, with a margin of a tenth.

    orbit: the degrees that it is to go round over the F frames; it shows each frame's points from where it then is.
    Raises SettingError if a point is not finite.
    """
    if not torch.isfinite(points).all():
        raise SettingError("The avatars have points that are not finite: check scale and clip.")
    middle = (points.amin((0, 1)) + points.amax((0, 1))) / 2
    x, y, z = (points - middle).unbind(-1)
    # The camera goes round one way, or all else the other.
    angle = torch.linspace(0, math.radians(orbit), len(points))[:, None]
    x, z = angle.cos() * x - angle.sin() * z, angle.sin() * x + angle.cos() * z
    slope = math.tan(math.radians(fov) / 2) / 1.1
    wide, tall = slope * max(width / height, 1), slope * max(height / width, 1)
    distance = torch.maximum(z + x.abs() / wide, z + y.abs() / tall).amax()
    target = tuple(middle.tolist())
    return Camera(_plus(target, (0.0, 0.0, max(float(distance), 0.1))), target, fov=fov)


def _named(vector: Vector) -> dict:
    return dict(zip("xyz", vector))


def _plus(vector: Vector, step: Vector) -> Vector:
    return tuple(a + b for a, b in zip(vector, step))


def _number(value: object, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SettingError(f"The camera's {what} is {str(value)[:40]}, a number is needed.")
    if not math.isfinite(value):
        raise SettingError(f"The camera's {what} is {value}, which is not finite. Set it anew in the viewer.")
    return float(value)


def _vector(info: Mapping, key: str) -> Vector:
    found = info.get(key) or {}
    if not isinstance(found, Mapping):
        raise SettingError(f"The camera's {key} is {str(found)[:40]}: x, y and z are needed.")
    return tuple(_number(found.get(axis, 0.0), key) for axis in "xyz")
