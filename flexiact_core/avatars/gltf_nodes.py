"""Nodes and animations of a glTF file: the skeleton at rest, and the clips that move it."""

from __future__ import annotations

import numpy as np
import torch

from .avatar import Channel, Clip, Skeleton
from .gltf_file import GltfFile
from .pose import local_matrices

MAX_NODES = 20_000
PATHS = ("translation", "rotation", "scale")


def read_skeleton(file: GltfFile) -> Skeleton:
    """All nodes of the file, in the file's numbering.

    Raises FileError for more than 20 000 nodes, a node with two parents or among its own descendants, or a transform
    that is no list of finite numbers.
    """
    nodes = file.items("nodes")
    if not 0 < len(nodes) <= MAX_NODES:
        raise file.fail(f"{len(nodes)} nodes, 1 to {MAX_NODES} can be read.")
    parents, order = _parents_and_order(file, nodes)
    translation = _transforms(file, nodes, "translation", [0.0, 0.0, 0.0])
    rotation = _transforms(file, nodes, "rotation", [0.0, 0.0, 0.0, 1.0])
    scale = _transforms(file, nodes, "scale", [1.0, 1.0, 1.0])
    length = rotation.norm(dim=-1, keepdim=True)
    rotation = torch.where(length > 1e-8, rotation / length.clamp_min(1e-8), torch.tensor([0.0, 0.0, 0.0, 1.0]))
    local = local_matrices(translation, rotation, scale)
    matrices = _transforms(file, nodes, "matrix", torch.eye(4).flatten().tolist()).reshape(-1, 4, 4)
    stored = torch.tensor(["matrix" in node for node in nodes])
    # glTF stores matrices column by column.
    local = torch.where(stored[:, None, None], matrices.transpose(1, 2), local)
    names = tuple(str(node.get("name", f"node {index}")) for index, node in enumerate(nodes))
    return Skeleton(names, parents, order, local, translation, rotation, scale)


def read_clips(file: GltfFile) -> tuple[tuple[Clip, ...], list[str]]:
    """The file's animations, and notes on what in them is left out (morph weights, channels with no target).

    Raises FileError for keys that are damaged: times that fall, counts that do not fit, an unknown interpolation.
    """
    clips, notes = [], []
    for index, animation in enumerate(file.items("animations")):
        samplers = file.items("samplers", animation)
        channels = []
        for entry in file.items("channels", animation):
            channel = _read_channel(file, entry, samplers)
            if channel is None:
                notes.append("Morph targets and other animated values than bones are left out.")
            else:
                channels.append(channel)
        if channels:
            duration = max(float(channel.times[-1]) for channel in channels)
            clips.append(Clip(str(animation.get("name") or f"clip {index}"), duration, tuple(channels)))
    return tuple(clips), notes


def _parents_and_order(file: GltfFile, nodes: list[dict]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    parents = [-1] * len(nodes)
    children: list[list[int]] = []
    for index, node in enumerate(nodes):
        found = node.get("children", [])
        if not isinstance(found, list):
            raise file.fail(f"the children of node {index} are no list. The file is damaged: export it anew.")
        for child in found:
            file.item("nodes", child)
            if parents[child] >= 0:
                raise file.fail(f"node {child} has two parents, {parents[child]} and {index}. Export it anew.")
            parents[child] = index
        children.append(found)
    order = [index for index, parent in enumerate(parents) if parent < 0]
    for index in order:  # grows while it is read: parents before children
        order.extend(children[index])
    if len(order) < len(nodes):
        loop = min(set(range(len(nodes))) - set(order))
        raise file.fail(f"node {loop} is among its own ancestors. The file is damaged: export it anew.")
    return tuple(parents), tuple(order)


def _transforms(file: GltfFile, nodes: list[dict], key: str, default: list[float]) -> torch.Tensor:
    rows = []
    for index, node in enumerate(nodes):
        row = node.get(key, default)
        whole = isinstance(row, list) and len(row) == len(default)
        if not whole or not all(isinstance(x, int | float) and abs(x) < 1e30 for x in row):
            raise file.fail(f"the {key} of node {index} is no list of {len(default)} numbers. Export it anew.")
        rows.append(row)
    return torch.tensor(rows, dtype=torch.float32)


def _read_channel(file: GltfFile, entry: dict, samplers: list[dict]) -> Channel | None:
    target, chosen = entry.get("target"), entry.get("sampler")
    if not isinstance(target, dict) or target.get("path") not in PATHS or "node" not in target:
        return None
    file.item("nodes", target["node"])
    if isinstance(chosen, bool) or not isinstance(chosen, int) or not 0 <= chosen < len(samplers):
        raise file.fail(f"an animation uses sampler {chosen} of {len(samplers)}. The file is damaged: export it anew.")
    sampler, path = samplers[chosen], target["path"]
    way = sampler.get("interpolation", "LINEAR")
    if way not in ("LINEAR", "STEP", "CUBICSPLINE"):
        raise file.fail(f"an animation is interpolated by '{str(way)[:40]}', which glTF 2.0 does not know.")
    times = file.accessor(sampler.get("input"), ("SCALAR",)).astype(np.float32)[:, 0]
    values = file.accessor(sampler.get("output"), ("VEC4",) if path == "rotation" else ("VEC3",)).astype(np.float32)
    each = 3 if way == "CUBICSPLINE" else 1
    if not len(times) or len(values) != each * len(times) or (np.diff(times) < 0).any():
        raise file.fail(
            f"an animation has {len(values)} values at {len(times)} times, or times that fall. Export anew."
        )
    shaped = values.reshape(len(times), 3, -1) if each == 3 else values
    return Channel(target["node"], path, way, torch.from_numpy(times.copy()), torch.from_numpy(shaped.copy()))
