"""A GLB or glTF file becomes one Avatar: meshes, skins, colours, textures, clips. Nothing but json and struct reads it.

Left out, and said in the avatar's notes: morph targets, points and lines. Limits are checked before memory is taken.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ..errors import FileError
from .avatar import Avatar, Skeleton
from .gltf_file import MAX_FILE_BYTES, GltfFile
from .gltf_materials import PLAIN, Surface, read_surfaces
from .gltf_nodes import read_clips, read_skeleton
from .pose import node_matrices

MAX_TRIANGLES = 1_000_000
MAX_VERTICES = 3_000_000
MAX_JOINTS = 1024
TRIANGLES, STRIP, FAN = 4, 5, 6


def load_avatar(path: str | Path) -> Avatar:
    """The avatar in a .glb or .gltf file. Buffers and textures beside a .gltf are read from its own folder only.

    Raises FileError if there is no such file, it is over 512 MB, damaged, compressed, or past the limits of
    read_avatar.
    """
    path = Path(path)
    if not path.is_file():
        raise FileError(f"{path.name}: there is no such file. Choose a .glb or .gltf.")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise FileError(f"{path.name}: over {MAX_FILE_BYTES >> 20} MB. Reduce the model before exporting.")
    return read_avatar(path.read_bytes(), path.name, path.parent)


def read_avatar(content: bytes, name: str = "model", folder: Path | None = None) -> Avatar:
    """The avatar in the content of a .glb or .gltf file; files beside it are read from `folder`, if one is given.

    Raises FileError for anything that is not glTF 2.0, compressed (Draco, meshopt, KTX2), damaged, without triangles,
    or with more than 1 million triangles, 3 million vertices or 1024 joints in a skin.
    """
    file = GltfFile(content, name, folder)
    skeleton = read_skeleton(file)
    instances = _drawn_instances(file, skeleton)
    _check_size(file, instances)
    parts = _Parts(file, skeleton, read_surfaces(file))
    for node, mesh, skin in instances:
        parts.add(node, mesh, skin)
    clips, notes = read_clips(file)
    if not parts.skins:
        notes.insert(0, "The model has no skin: it is drawn rigid.")
    if not clips:
        notes.insert(0, "The model has no clips: it stands at rest.")
    return parts.avatar(clips, Path(name).stem, notes)


def _drawn_instances(file: GltfFile, skeleton: Skeleton) -> list[tuple[int, dict, int | None]]:
    """(node, mesh, skin) of what the default scene shows; of all nodes if the file has no scene."""
    shown = set(range(len(skeleton.names)))
    if file.items("scenes"):
        roots = file.item("scenes", file.count(file.data, "scene", 0)).get("nodes", [])
        shown = set()
        for root in roots if isinstance(roots, list) else []:
            file.item("nodes", root)
            shown.add(root)
        for node in skeleton.order:
            if skeleton.parents[node] in shown:
                shown.add(node)
    nodes = file.items("nodes")
    return [
        (i, file.item("meshes", nodes[i]["mesh"]), nodes[i].get("skin")) for i in sorted(shown) if "mesh" in nodes[i]
    ]


def _check_size(file: GltfFile, instances: list) -> None:
    """Counts what all meshes would take, from the file's own words; nothing is read yet."""
    triangles = vertices = 0
    for _, mesh, skin in instances:
        for primitive in file.items("primitives", mesh):
            corners = file.accessor_count(_attributes(file, primitive).get("POSITION"))
            count = file.accessor_count(primitive["indices"]) if "indices" in primitive else corners
            vertices += corners
            triangles += count // 3 if primitive.get("mode", TRIANGLES) == TRIANGLES else count
        joints = file.item("skins", skin).get("joints") if skin is not None else []
        if not isinstance(joints, list) or len(joints) > MAX_JOINTS:
            raise file.fail(f"a skin has more than {MAX_JOINTS} joints, or none that can be read. Use a smaller rig.")
        # At once: a file of a few bytes may show one mesh in thousands of places.
        if triangles > MAX_TRIANGLES or vertices > MAX_VERTICES:
            raise file.fail(
                f"{triangles} triangles and {vertices} vertices or more; at most {MAX_TRIANGLES} and {MAX_VERTICES} "
                "are drawn. Reduce the model before exporting."
            )


def _attributes(file: GltfFile, primitive: dict) -> dict:
    attributes = primitive.get("attributes")
    if not isinstance(attributes, dict) or "POSITION" not in attributes:
        raise file.fail("a mesh has no POSITION. The file is damaged: export it anew.")
    extensions = primitive.get("extensions")
    if isinstance(extensions, dict) and "KHR_draco_mesh_compression" in extensions:
        position = file.item("accessors", attributes["POSITION"])
        if "bufferView" not in position:
            raise file.fail("it uses Draco compression, which is not read. Export it without compression.")
    return attributes


class _Parts:
    """Collects the primitives of a file into the one mesh of an Avatar."""

    def __init__(self, file: GltfFile, skeleton: Skeleton, surfaces: list[Surface]):
        self.file, self.skeleton, self.surfaces = file, skeleton, surfaces
        self.rows: dict[str, list[np.ndarray]] = {}
        self.joint_nodes: list[int] = []
        self.inverse_bind: list[np.ndarray] = []
        self.skins: dict[int, int] = {}
        self.materials = [PLAIN.material, *(surface.material for surface in surfaces)]
        self.vertices = 0
        self.notes: list[str] = []
        self.rest = node_matrices(skeleton, None, torch.zeros(1))[0].numpy()

    def add(self, node: int, mesh: dict, skin: int | None) -> None:
        """Takes in all triangles of one node's mesh."""
        for primitive in self.file.items("primitives", mesh):
            if primitive.get("mode", TRIANGLES) not in (TRIANGLES, STRIP, FAN):
                self.notes.append("Points and lines are left out.")
                continue
            if primitive.get("targets"):
                self.notes.append("Morph targets are left out.")
            self._add_primitive(node, primitive, skin)

    def _add_primitive(self, node: int, primitive: dict, skin: int | None) -> None:
        file, attributes = self.file, _attributes(self.file, primitive)
        points = file.accessor(attributes["POSITION"], ("VEC3",)).astype(np.float32)
        count = len(points)
        faces = _faces(file, primitive, count)
        surface, material = PLAIN, 0
        if "material" in primitive:
            file.item("materials", primitive["material"])
            surface, material = self.surfaces[primitive["material"]], 1 + primitive["material"]
        joints, weights = self._binding(node, attributes, skin, count)
        # A mirror image turns its triangles round; a rig of mirrored bones is not met.
        if (skin is None or "JOINTS_0" not in attributes) and np.linalg.det(self.rest[node, :3, :3]) < 0:
            faces = faces[:, [0, 2, 1]]
        # Primitives may share their vertices: each takes those that it uses.
        used, faces = np.unique(faces, return_inverse=True)
        rows = {
            "vertices": points[used],
            "normals": _normals(file, attributes, points, used[faces].reshape(-1, 3))[used],
            "colours": self._colours(attributes, surface, count)[used],
            "uvs": self._uvs(attributes, surface, count)[used],
            "joints": joints[used],
            "weights": weights[used],
            "faces": faces.reshape(-1, 3) + self.vertices,
            "face_material": np.full(faces.size // 3, material),
        }
        for name, values in rows.items():
            self.rows.setdefault(name, []).append(values)
        self.vertices += len(used)

    def _optional(self, attributes: dict, name: str, kinds: tuple[str, ...], count: int) -> np.ndarray | None:
        if name not in attributes:
            return None
        values = self.file.accessor(attributes[name], kinds)
        if len(values) != count:
            raise self.file.fail(f"{name} has {len(values)} rows for {count} vertices. Export it anew.")
        return values

    def _colours(self, attributes: dict, surface: Surface, count: int) -> np.ndarray:
        colours = self._optional(attributes, "COLOR_0", ("VEC3", "VEC4"), count)
        base = np.array(surface.colour, np.float32)
        if colours is None:
            return np.tile(base, (count, 1))
        return colours[:, :3].astype(np.float32).clip(0, 1) * base

    def _uvs(self, attributes: dict, surface: Surface, count: int) -> np.ndarray:
        uvs = self._optional(attributes, f"TEXCOORD_{surface.uv_set}", ("VEC2",), count)
        if uvs is None:
            return np.zeros((count, 2), np.float32)
        if surface.uv_matrix is not None:
            uvs = (np.concatenate([uvs, np.ones((count, 1))], 1) @ surface.uv_matrix.T)[:, :2]
        return uvs.astype(np.float32)

    def _binding(self, node: int, attributes: dict, skin: int | None, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Joints (V, K) into the avatar's joints, and weights that sum to 1."""
        if skin is None or "JOINTS_0" not in attributes:
            self.joint_nodes.append(node)
            self.inverse_bind.append(np.eye(4, dtype=np.float32)[None])
            return np.full((count, 1), len(self.joint_nodes) - 1), np.ones((count, 1), np.float32)
        first, size = self._skin(skin)
        joints, weights = [], []
        for number in range(2):  # four joints each
            found = self._optional(attributes, f"JOINTS_{number}", ("VEC4",), count)
            shares = self._optional(attributes, f"WEIGHTS_{number}", ("VEC4",), count)
            if found is not None and shares is not None:
                joints.append(found.astype(np.int64))
                weights.append(shares.astype(np.float32).clip(0))
        if not joints:
            raise self.file.fail("a skinned mesh has joints without weights. The file is damaged: export it anew.")
        index, share = np.concatenate(joints, 1), np.concatenate(weights, 1)
        index[share == 0] = 0  # what a joint of no weight is called does not matter
        if index.size and not 0 <= index.min() <= index.max() < size:
            raise self.file.fail(f"a vertex is bound to joint {index.max()} of {size}. Export it anew.")
        total = share.sum(1, keepdims=True)
        loose = total[:, 0] <= 1e-8
        if loose.any():
            self.notes.append(f"{int(loose.sum())} vertices have no weights: they follow the skin's first joint.")
            share[loose, 0], total[loose] = 1.0, 1.0
        return index + first, share / total

    def _skin(self, index: int) -> tuple[int, int]:
        """Where the joints of a skin start in the avatar, and how many it has; read once."""
        skin = self.file.item("skins", index)
        joints = skin.get("joints", [])
        if index not in self.skins:
            for joint in joints:
                self.file.item("nodes", joint)
            bind = np.tile(np.eye(4, dtype=np.float32), (len(joints), 1, 1))
            if "inverseBindMatrices" in skin:
                stored = self.file.accessor(skin["inverseBindMatrices"], ("MAT4",)).astype(np.float32)
                if len(stored) < len(joints):
                    raise self.file.fail(
                        f"a skin has {len(joints)} joints and {len(stored)} bind matrices. Export anew."
                    )
                bind = stored[: len(joints)].reshape(-1, 4, 4).transpose(0, 2, 1)
            self.skins[index] = len(self.joint_nodes)
            self.joint_nodes += joints
            self.inverse_bind.append(bind)
        return self.skins[index], len(joints)

    def avatar(self, clips: tuple, name: str, notes: list[str]) -> Avatar:
        """What has been taken in, as one value. Raises FileError if that is no triangle."""
        if not sum(len(faces) for faces in self.rows.get("faces", [])):
            raise self.file.fail("it has no triangles to draw. A mesh is needed.")
        width = max(joints.shape[1] for joints in self.rows["joints"])
        for key in ("joints", "weights"):
            self.rows[key] = [np.pad(rows, ((0, 0), (0, width - rows.shape[1]))) for rows in self.rows[key]]
        whole = ("faces", "face_material", "joints")
        tensors = {
            key: torch.from_numpy(np.concatenate(rows).astype(np.int64 if key in whole else np.float32))
            for key, rows in self.rows.items()
        }
        return Avatar(
            **tensors,
            materials=tuple(self.materials),
            joint_nodes=torch.tensor(self.joint_nodes),
            inverse_bind=torch.from_numpy(np.ascontiguousarray(np.concatenate(self.inverse_bind))),
            skeleton=self.skeleton,
            clips=clips,
            name=name,
            notes=tuple(dict.fromkeys([*notes, *self.notes])),
        )


def _faces(file: GltfFile, primitive: dict, count: int) -> np.ndarray:
    """(N, 3) corners of a list, strip or fan of triangles; those without area by their corners are left out."""
    if "indices" in primitive:
        corners = file.accessor(primitive["indices"], ("SCALAR",)).astype(np.int64)[:, 0]
        if len(corners) and not 0 <= corners.min() <= corners.max() < count:
            raise file.fail(f"a triangle uses vertex {corners.max()} of {count}. The file is damaged: export it anew.")
    else:
        corners = np.arange(count)
    mode = primitive.get("mode", TRIANGLES)
    if mode == TRIANGLES:
        return corners[: len(corners) // 3 * 3].reshape(-1, 3)
    if len(corners) < 3:
        return np.zeros((0, 3), np.int64)
    if mode == FAN:
        return np.stack([np.full(len(corners) - 2, corners[0]), corners[1:-1], corners[2:]], 1)
    faces = np.stack([corners[:-2], corners[1:-1], corners[2:]], 1)
    faces[1::2] = faces[1::2][:, [1, 0, 2]]  # every second triangle of a strip runs the other way round
    return faces


def _normals(file: GltfFile, attributes: dict, points: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """The file's normals; if it has none, of the smooth surface, corners at the same point taken together."""
    if "NORMAL" in attributes:
        stored = file.accessor(attributes["NORMAL"], ("VEC3",)).astype(np.float64)
        if len(stored) == len(points):
            return (stored / np.maximum(np.linalg.norm(stored, axis=1, keepdims=True), 1e-12)).astype(np.float32)
    points = points.astype(np.float64)
    across = np.cross(points[faces[:, 1]] - points[faces[:, 0]], points[faces[:, 2]] - points[faces[:, 0]])
    _, same = np.unique(points, axis=0, return_inverse=True)
    same = same.reshape(-1)
    total = np.zeros((len(points), 3), np.float64)
    for corner in range(3):
        np.add.at(total, same[faces[:, corner]], across)
    normals = total[same]
    return (normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)).astype(np.float32)
