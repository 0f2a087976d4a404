"""Writes a GLB: one skinned mesh with vertex colours, and clips of rotations. The same input gives the same bytes."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass

import numpy as np

from .mesh import Part
from .source import BONES, PREFIX

FLOAT, UBYTE, USHORT, SHORT = 5126, 5121, 5123, 5122
MATTE = {"metallicFactor": 0.0, "roughnessFactor": 0.9}
TYPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}


@dataclass(frozen=True, eq=False)
class Motion:
    """A clip: times (T,) in seconds, the bones' rotations against their parents (T, B, 4) as x y z w, and where the
    hips are (T, 3) in metres."""

    name: str
    times: np.ndarray
    rotations: np.ndarray
    hips: np.ndarray


class _Writer:
    def __init__(self):
        self.blob = bytearray()
        self.views: list[dict] = []
        self.accessors: list[dict] = []

    def add(self, values: np.ndarray, kind: int, *, normalised: bool = False, bounds: bool = False) -> int:
        """An accessor over `values` (count, width), stored as they are."""
        while len(self.blob) % 4:
            self.blob.append(0)
        content = np.ascontiguousarray(values)
        self.views.append({"buffer": 0, "byteOffset": len(self.blob), "byteLength": content.nbytes})
        self.blob += content.tobytes()
        entry = {
            "bufferView": len(self.views) - 1,
            "componentType": kind,
            "count": len(content),
            "type": TYPES[int(np.prod(content.shape[1:]))],
        }
        if normalised:
            entry["normalized"] = True
        if bounds:
            flat = content.reshape(len(content), -1)
            entry |= {"min": flat.min(0).tolist(), "max": flat.max(0).tolist()}
        self.accessors.append(entry)
        return len(self.accessors) - 1


def write_glb(
    parts: list[Part], heads: np.ndarray, parents: tuple[int, ...], motions: list[Motion], about: dict
) -> bytes:
    """A GLB of the parts as one skinned mesh over BONES, which begin at `heads` (B, 3); about goes into "asset"."""
    writer = _Writer()
    primitives = _mesh(writer, parts)
    bind = np.tile(np.eye(4, dtype=np.float32), (len(BONES), 1, 1))
    bind[:, 3, :3] = -heads  # column by column, so the move is the last row
    skin = {"joints": list(range(1, len(BONES) + 1)), "inverseBindMatrices": writer.add(bind.reshape(-1, 16), FLOAT)}
    nodes = [{"name": "person", "children": [1, 1 + len(BONES)]}]
    for bone, name in enumerate(BONES):
        place = heads[bone] - (heads[parents[bone]] if parents[bone] >= 0 else 0)
        node = {"name": PREFIX + name, "translation": [round(float(x), 6) for x in place]}
        children = [index + 1 for index, parent in enumerate(parents) if parent == bone]
        nodes.append(node | ({"children": children} if children else {}))
    nodes.append({"name": "body", "mesh": 0, "skin": 0})
    data = {
        "asset": {"version": "2.0", **about},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": nodes,
        "meshes": [{"primitives": primitives}],
        "materials": [{"pbrMetallicRoughness": MATTE}, {"doubleSided": True, "pbrMetallicRoughness": MATTE}],
        "skins": [skin],
        "animations": [_animation(writer, motion) for motion in motions],
    }
    data |= {"accessors": writer.accessors, "bufferViews": writer.views}
    data["buffers"] = [{"byteLength": len(writer.blob)}]
    text = json.dumps(data, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    blob = bytes(writer.blob) + b"\0" * (-len(writer.blob) % 4)
    chunks = struct.pack("<II", len(text), 0x4E4F534A) + text + struct.pack("<II", len(blob), 0x004E4942) + blob
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def _mesh(writer: _Writer, parts: list[Part]) -> list[dict]:
    """The primitives: one of closed parts, one of open ones, which have two sides; over the same vertices."""
    starts = np.cumsum([0, *(len(part.points) for part in parts)])
    points = np.concatenate([part.points for part in parts]).astype(np.float32)
    normals = np.concatenate([part.normals for part in parts]).astype(np.float32)
    colours = np.concatenate([np.tile(_linear(part.colour), (len(part.points), 1)) for part in parts])
    joints, weights = _four_joints(np.concatenate([part.weights for part in parts]))
    attributes = {
        "POSITION": writer.add(points, FLOAT, bounds=True),
        "NORMAL": writer.add(normals, FLOAT),
        "COLOR_0": writer.add(colours, UBYTE, normalised=True),
        "JOINTS_0": writer.add(joints, UBYTE),
        "WEIGHTS_0": writer.add(weights, UBYTE, normalised=True),
    }
    primitives = []
    for material, is_open in enumerate((False, True)):
        faces = [part.faces + start for part, start in zip(parts, starts) if part.open == is_open]
        indices = writer.add(np.concatenate(faces).reshape(-1, 1).astype(np.uint16), USHORT)
        primitives.append({"attributes": attributes, "indices": indices, "material": material})
    return primitives


def _linear(colour: tuple[float, float, float]) -> np.ndarray:
    values = np.array(colour)
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return np.append(np.round(linear * 255), 255).astype(np.uint8)


def _four_joints(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The four heaviest bones of each vertex, their shares of 255 summing to 255."""
    order = np.argsort(-weights, axis=1, kind="stable")[:, :4]
    share = np.take_along_axis(weights, order, 1)
    share = np.floor(share / np.maximum(share.sum(1, keepdims=True), 1e-9) * 255)
    share[:, 0] += 255 - share.sum(1)
    return np.where(share > 0, order, 0).astype(np.uint8), share.astype(np.uint8)


def _animation(writer: _Writer, motion: Motion) -> dict:
    times = writer.add(motion.times.astype(np.float32).reshape(-1, 1), FLOAT, bounds=True)
    samplers = [{"input": times, "output": writer.add(motion.hips.astype(np.float32), FLOAT)}]
    channels = [{"sampler": 0, "target": {"node": 1, "path": "translation"}}]
    for bone in range(len(BONES)):
        turned = motion.rotations[:, bone]
        if np.abs(turned - [0, 0, 0, 1]).max() < 1e-4:
            continue
        stored = np.round(turned * 32767).astype(np.int16)
        channels.append({"sampler": len(samplers), "target": {"node": bone + 1, "path": "rotation"}})
        samplers.append({"input": times, "output": writer.add(stored, SHORT, normalised=True)})
    return {"name": motion.name, "samplers": samplers, "channels": channels}
