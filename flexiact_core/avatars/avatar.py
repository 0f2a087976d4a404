"""The value that a glTF file becomes: one mesh, its joints, its clips. Plain tensors, nothing of the file is kept.

Letters: V vertices, N triangles, J joints, K joints of a vertex, M nodes of the skeleton, T keys of a channel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import SettingError


@dataclass(frozen=True, eq=False)
class Channel:
    """How one node moves in a clip.

    node counts the skeleton's nodes; path is "translation", "rotation" or "scale"; times (T,) are seconds, rising;
    values are (T, 3), rotations (T, 4) as x y z w; for way "CUBICSPLINE" (T, 3, n): in-tangent, value, out-tangent.
    way is "LINEAR", "STEP" or "CUBICSPLINE".
    """

    node: int
    path: str
    way: str
    times: Tensor
    values: Tensor


@dataclass(frozen=True, eq=False)
class Clip:
    """A named motion of `duration` seconds."""

    name: str
    duration: float
    channels: tuple[Channel, ...]


@dataclass(frozen=True, eq=False)
class Skeleton:
    """The nodes of a model: names, parents (-1 for a root), and where each stands at rest.

    order lists the nodes so that parents come first. rest_local is (M, 4, 4); translation (M, 3), rotation (M, 4) as
    x y z w and scale (M, 3) are its parts, used for the nodes that a clip moves.
    """

    names: tuple[str, ...]
    parents: tuple[int, ...]
    order: tuple[int, ...]
    rest_local: Tensor
    translation: Tensor
    rotation: Tensor
    scale: Tensor


@dataclass(frozen=True, eq=False)
class Material:
    """How the triangles of a material look.

    texture is (h, w, 4) uint8 in sRGB with alpha, or None; alpha is the material's own, times the texture's; below
    `cutoff` a spot is not drawn (None: all is drawn); unlit colours take no light.
    """

    texture: Tensor | None = None
    alpha: float = 1.0
    cutoff: float | None = None
    double_sided: bool = False
    unlit: bool = False


@dataclass(frozen=True, eq=False)
class Avatar:
    """A model that can be posed and drawn. Metres, Y up, facing +Z, as glTF has it.

    vertices, normals (V, 3); colours (V, 3) linear 0..1, the material's colour included; uvs (V, 2); faces (N, 3);
    face_material (N,) into materials; joints and weights (V, K), weights of a vertex sum to 1; joint_nodes (J,) into
    the skeleton; inverse_bind (J, 4, 4). notes say in one sentence each what the file has that is not used.
    """

    vertices: Tensor
    normals: Tensor
    colours: Tensor
    uvs: Tensor
    faces: Tensor
    face_material: Tensor
    materials: tuple[Material, ...]
    joints: Tensor
    weights: Tensor
    joint_nodes: Tensor
    inverse_bind: Tensor
    skeleton: Skeleton
    clips: tuple[Clip, ...]
    name: str = "avatar"
    notes: tuple[str, ...] = ()

    def clip(self, name: str = "") -> Clip | None:
        """The clip of that name; the first for an empty name; None if the model has no clips.

        Raises SettingError if there are clips, but none of that name.
        """
        if not name.strip() or not self.clips:
            return self.clips[0] if self.clips else None
        wanted = name.strip().casefold()
        for clip in self.clips:
            if clip.name.casefold() == wanted:
                return clip
        known = ", ".join(clip.name for clip in self.clips[:20])
        raise SettingError(f"{self.name} has no clip '{name}'. Its clips: {known}. Leave it empty for the first.")

    def to(self, device: torch.device | str) -> Avatar:
        """The same avatar with all that is drawn on `device`; skeleton and clips stay, as poses are small."""
        moved = {
            name: getattr(self, name).to(device)
            for name in ("vertices", "normals", "colours", "uvs", "faces", "face_material", "joints", "weights")
        }
        textures = [m if m.texture is None else replace(m, texture=m.texture.to(device)) for m in self.materials]
        return replace(self, **moved, materials=tuple(textures))
