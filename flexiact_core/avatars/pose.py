"""A clip at a time becomes joint matrices, and those move the vertices: linear blend skinning as glTF 2.0 has it.

Letters: F frames, M nodes, J joints, V vertices. Matrices act on columns; quaternions are x y z w.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .avatar import Avatar, Channel, Clip, Skeleton


def rotation_matrices(quaternions: Tensor) -> Tensor:
    """(..., 3, 3) rotations of unit quaternions (..., 4), x y z w."""
    x, y, z, w = quaternions.unbind(-1)
    rows = [
        torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)], -1),
        torch.stack([2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)], -1),
        torch.stack([2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)], -1),
    ]
    return torch.stack(rows, -2)


def local_matrices(translation: Tensor, rotation: Tensor, scale: Tensor) -> Tensor:
    """(..., 4, 4) matrices that scale, then rotate, then move; from (..., 3), (..., 4) and (..., 3)."""
    matrix = torch.zeros(*translation.shape[:-1], 4, 4)
    matrix[..., :3, :3] = rotation_matrices(rotation) * scale[..., None, :]
    matrix[..., :3, 3] = translation
    matrix[..., 3, 3] = 1
    return matrix


def sample_channel(channel: Channel, seconds: Tensor) -> Tensor:
    """The values of a channel at `seconds` (F,): (F, 3), or (F, 4) unit quaternions. Held before and after its keys.

    Source: glTF 2.0, appendix C (interpolation modes).
    """
    times = channel.times
    at = seconds.clamp(float(times[0]), float(times[-1]))
    after = torch.searchsorted(times, at, right=True).clamp(1, max(len(times) - 1, 1))
    before = after - 1
    after = after.clamp_max(len(times) - 1)
    step = (times[after] - times[before]).clamp_min(1e-12)
    share = ((at - times[before]) / step).clamp(0, 1)[:, None]
    if channel.way == "STEP":
        # At a key's own time the key holds, also at the last one.
        values = torch.where(share >= 1, channel.values[after], channel.values[before])
    elif channel.way == "CUBICSPLINE":
        values = _cubic(channel.values[before], channel.values[after], share, step[:, None])
    elif channel.path == "rotation":
        values = _slerp(channel.values[before], channel.values[after], share)
    else:
        values = torch.lerp(channel.values[before], channel.values[after], share)
    return values / values.norm(dim=-1, keepdim=True).clamp_min(1e-8) if channel.path == "rotation" else values


def _cubic(before: Tensor, after: Tensor, t: Tensor, step: Tensor) -> Tensor:
    t2, t3 = t * t, t * t * t
    start = (2 * t3 - 3 * t2 + 1) * before[:, 1] + (t3 - 2 * t2 + t) * step * before[:, 2]
    return start + (3 * t2 - 2 * t3) * after[:, 1] + (t3 - t2) * step * after[:, 0]


def _slerp(before: Tensor, after: Tensor, share: Tensor) -> Tensor:
    """Along the shorter arc; nearly equal quaternions are mixed straight."""
    cosine = (before * after).sum(-1, keepdim=True)
    after = torch.where(cosine < 0, -after, after)
    angle = cosine.abs().clamp_max(1).acos()
    sine = angle.sin()
    near = sine < 1e-4
    sine = sine.clamp_min(1e-4)
    first = torch.where(near, 1 - share, ((1 - share) * angle).sin() / sine)
    second = torch.where(near, share, (share * angle).sin() / sine)
    return first * before + second * after


def node_matrices(skeleton: Skeleton, clip: Clip | None, seconds: Tensor) -> Tensor:
    """Where each node stands in the model's space at `seconds` (F,): (F, M, 4, 4). No clip: at rest."""
    frames = len(seconds)
    moved: dict[int, dict[str, Tensor]] = {}
    for channel in clip.channels if clip else ():
        moved.setdefault(channel.node, {})[channel.path] = sample_channel(channel, seconds)
    local = skeleton.rest_local.expand(frames, -1, -1, -1).clone()
    for node, parts in moved.items():
        translation, rotation, scale = (
            parts.get(name, getattr(skeleton, name)[node].expand(frames, -1))
            for name in ("translation", "rotation", "scale")
        )
        local[:, node] = local_matrices(translation, rotation, scale)
    world = local
    for node in skeleton.order:
        if skeleton.parents[node] >= 0:
            world[:, node] = world[:, skeleton.parents[node]] @ local[:, node]
    return world


def joint_matrices(avatar: Avatar, nodes: Tensor) -> Tensor:
    """What skinning multiplies vertices with: (F, J, 4, 4) from node_matrices' (F, M, 4, 4)."""
    return nodes[:, avatar.joint_nodes] @ avatar.inverse_bind


def skin(avatar: Avatar, joints: Tensor) -> tuple[Tensor, Tensor]:
    """Vertices and normals (V, 3) of one frame; joints (J, 4, 4) on the avatar's device. Normals have length 1."""
    points = torch.zeros_like(avatar.vertices)
    normals = torch.zeros_like(avatar.normals)
    # Joint by joint of a vertex: a blended matrix a vertex would take 16 numbers instead of 3.
    for column in range(avatar.joints.shape[1]):
        matrix = joints[avatar.joints[:, column]]
        weight = avatar.weights[:, column, None]
        points += weight * ((matrix[:, :3, :3] @ avatar.vertices[..., None])[..., 0] + matrix[:, :3, 3])
        normals += weight * (matrix[:, :3, :3] @ avatar.normals[..., None])[..., 0]
    return points, normals / normals.norm(dim=-1, keepdim=True).clamp_min(1e-12)
