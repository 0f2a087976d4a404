"""Small glTF models for tests, byte by byte: a second formulation, which shares nothing with what reads them."""

from __future__ import annotations

import base64
import json
import struct

import numpy as np

KINDS = {"f4": 5126, "u1": 5121, "u2": 5123, "u4": 5125, "i1": 5120, "i2": 5122}
TYPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}
IDENTITY = np.eye(4).flatten().tolist()


class Model:
    """A glTF that grows: `data` is its JSON, which tests may change before they ask for bytes."""

    def __init__(self):
        self.blob = b""
        self.data = {"asset": {"version": "2.0"}, "accessors": [], "bufferViews": [], "nodes": [], "meshes": []}

    def view(self, content: bytes, **more) -> int:
        self.blob += b"\0" * (-len(self.blob) % 4)
        entry = {"buffer": 0, "byteOffset": len(self.blob), "byteLength": len(content)}
        self.data["bufferViews"].append(entry | more)
        self.blob += content
        return len(self.data["bufferViews"]) - 1

    def accessor(self, rows, kind: str = "f4", **more) -> int:
        values = np.array(rows, dtype="<" + kind)
        values = values.reshape(len(values), -1)
        entry = {
            "bufferView": self.view(values.tobytes()),
            "componentType": KINDS[kind],
            "count": len(values),
            "type": TYPES[values.shape[1]],
        }
        return self.entry(**entry | more)

    def entry(self, **entry) -> int:
        self.data["accessors"].append(entry)
        return len(self.data["accessors"]) - 1

    def finished(self) -> dict:
        return self.data | {"buffers": [{"byteLength": len(self.blob)}]}

    def glb(self) -> bytes:
        return to_glb(self.finished(), self.blob)

    def embedded(self) -> bytes:
        data = self.finished()
        uri = "data:application/octet-stream;base64," + base64.b64encode(self.blob).decode()
        data["buffers"][0]["uri"] = uri
        return json.dumps(data).encode()


def to_glb(data: dict, blob: bytes) -> bytes:
    text = json.dumps(data).encode()
    text += b" " * (-len(text) % 4)
    blob += b"\0" * (-len(blob) % 4)
    chunks = struct.pack("<II", len(text), 0x4E4F534A) + text + struct.pack("<II", len(blob), 0x004E4942) + blob
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


# Two rods end to end along +X, of one triangle each: the first belongs to "root", the second to "tip" at x 1.
ARM_POINTS = [[0, 0, 0], [1, 0, 0], [0, 0.2, 0], [1, 0, 0], [2, 0, 0], [1, 0.2, 0]]
ARM_JOINTS = [[0, 0, 0, 0]] * 3 + [[1, 0, 0, 0]] * 3
ARM_WEIGHTS = [[1, 0, 0, 0]] * 6


def arm(
    joint_kind: str = "u1", *, points=ARM_POINTS, joints=ARM_JOINTS, weights=ARM_WEIGHTS, clip: bool = True
) -> Model:
    """A skinned model of two bones; its clip "bend" turns the second by 90 degrees about Z within a second."""
    model = Model()
    attributes = {
        "POSITION": model.accessor(ARM_POINTS),
        "JOINTS_0": model.accessor(joints, joint_kind),
        "WEIGHTS_0": model.accessor(weights),
    }
    model.data["meshes"] = [{"primitives": [{"attributes": attributes}]}]
    model.data["nodes"] = [
        {"name": "root", "children": [1]},
        {"name": "tip", "translation": [1, 0, 0]},
        {"name": "body", "mesh": 0, "skin": 0},
    ]
    tip = np.eye(4)
    tip[3, 0] = -1  # column by column
    model.data["skins"] = [
        {"joints": [0, 1], "inverseBindMatrices": model.accessor([IDENTITY, tip.flatten().tolist()])}
    ]
    if clip:
        half = 0.5**0.5
        add_clip(model, "bend", [0, 1], [[0, 0, 0, 1], [0, 0, half, half]], node=1)
    return model


def add_clip(model: Model, name: str, times, values, node: int, path: str = "rotation", way: str = "LINEAR", **kinds):
    sampler = {
        "input": model.accessor([[t] for t in times]),
        "output": model.accessor(values, **kinds),
        "interpolation": way,
    }
    channel = {"sampler": 0, "target": {"node": node, "path": path}}
    model.data.setdefault("animations", []).append({"name": name, "samplers": [sampler], "channels": [channel]})


def triangle(points=((0, 0, 0), (1, 0, 0), (0, 1, 0)), **attributes) -> Model:
    """One triangle on one node, without a skin; attributes are what accessor() takes, by glTF's name."""
    model = Model()
    entries = {"POSITION": model.accessor(points)}
    entries |= {
        name: model.accessor(*values) if isinstance(values, tuple) else values for name, values in attributes.items()
    }
    model.data["meshes"] = [{"primitives": [{"attributes": entries}]}]
    model.data["nodes"] = [{"name": "thing", "mesh": 0}]
    return model
