"""Where the joints of posed avatars are: found by the names of bones, seen by a camera, given as poses.

Letters: F frames, M nodes of a skeleton, K the 18 joints of OpenPose, V vertices.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from ..poses.skeletons import LAYOUTS, OPENPOSE18
from .avatar import Avatar
from .camera import Camera
from .pose import joint_matrices, node_matrices, skin

NAMES = LAYOUTS[OPENPOSE18]
# Words that bone names carry and that say nothing: of Mixamo, VRM, 3ds Max, Rigify, Character Creator, Source.
_EMPTY_WORDS = {"mixamorig", "j", "c", "bip", "def", "org", "cc", "base", "armature", "valvebiped", "rig", "sec"}
# What a joint is called without its side, best first: SMPL's shoulder is others' upper arm, Mixamo's is the clavicle.
_STEMS = {
    "shoulder": ("upperarm", "uparm", "arm", "shldr", "shoulder"),
    "elbow": ("forearm", "lowerarm", "lowarm", "elbow"),
    "wrist": ("hand", "wrist"),
    "hip": ("upleg", "upperleg", "thigh", "hip"),
    "knee": ("leg", "lowerleg", "lowleg", "calf", "shin", "knee"),
    "ankle": ("foot", "ankle"),
    "eye": ("eye", "faceeye", "eyeball"),
    "ear": ("ear",),
}
_HEAD = ("head",)
_FACE = ("nose", "right_eye", "left_eye", "right_ear", "left_ear")
# Where eyes, nose and ears are on a head: shares of its height from below, and of half its width.
_FACE_UP = {"nose": 0.38, "eye": 0.50, "ear": 0.45}
_FACE_OUT = {"nose": 0.0, "eye": 0.42, "ear": 0.88}


@dataclass(frozen=True, eq=False)
class Body:
    """Which node is which joint, and where joints lie that have no node of their own.

    nodes maps names of OpenPose's joints to the skeleton's nodes; carried maps the others to (node, place (3,) in that
    node's space). forward (3,) is where the face looks in the head node's space, None without a head.
    """

    nodes: dict[str, int]
    carried: dict[str, tuple[int, Tensor]]
    head: int | None
    forward: Tensor | None


def bone_stem(name: str) -> tuple[str, str]:
    """What a bone's name says: side "left", "right" or "", and the rest in small letters. "mixamorig:LeftUpLeg" gives
    ("left", "upleg"), "thigh.L" ("left", "thigh")."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)
    words = [word.lower() for word in words]
    side = ""
    rest = []
    for word in words:
        if word in ("left", "l", "right", "r") and not side:
            side = "left" if word[0] == "l" else "right"
        elif word not in _EMPTY_WORDS and not (word.isdigit() and not rest):
            rest.append(word)
    return side, "".join(rest)


def find_body(avatar: Avatar) -> Body | None:
    """The joints of a human skeleton by its bones' names; None if shoulders or hips are not found.

    Known are the names of Mixamo, BVH of CMU, VRM, Unreal, Rigify, 3ds Max' Biped, Character Creator and SMPL.
    """
    stems: dict[tuple[str, str], int] = {}
    for node in avatar.skeleton.order:
        stems.setdefault(bone_stem(avatar.skeleton.names[node]), node)
    nodes = {}
    for joint, names in _STEMS.items():
        for side in ("right", "left"):
            found = [stems[side, name] for name in names if (side, name) in stems]
            if found:
                nodes[f"{side}_{joint}"] = found[0]
    if not {"left_shoulder", "right_shoulder", "left_hip", "right_hip"} <= nodes.keys():
        return None
    if ("", "nose") in stems:
        nodes["nose"] = stems["", "nose"]
    head = next((stems["", name] for name in _HEAD if ("", name) in stems), None)
    carried, forward = _face(avatar, nodes, head) if head is not None else ({}, None)
    return Body(nodes, {name: place for name, place in carried.items() if name not in nodes}, head, forward)


def place_joints(body: Body, nodes: Tensor) -> tuple[Tensor, Tensor]:
    """OpenPose's 18 joints (F, K, 3) where nodes (F, M, 4, 4) put them, and which of them are known (K,) bool."""
    frames = len(nodes)
    places, known = torch.zeros(frames, len(NAMES), 3), torch.zeros(len(NAMES), dtype=torch.bool)
    for index, name in enumerate(NAMES):
        if name in body.nodes:
            places[:, index] = nodes[:, body.nodes[name], :3, 3]
        elif name in body.carried:
            node, place = body.carried[name]
            places[:, index] = (nodes[:, node, :3, :3] @ place) + nodes[:, node, :3, 3]
        elif name == "neck":
            places[:, index] = nodes[:, [body.nodes["left_shoulder"], body.nodes["right_shoulder"]], :3, 3].mean(1)
        else:
            continue
        known[index] = True
    return places, known


def see_joints(
    body: Body,
    places: Tensor,
    known: Tensor,
    heads: Tensor | None,
    cameras: tuple[Camera, ...],
    width: int,
    height: int,
) -> tuple[Tensor, Tensor]:
    """The joints in the picture, (F, K, 2) pixels, and scores (F, K): 1 for those a detector could see, else 0.

    Not seen are joints behind the camera or outside the picture, nose and eyes of a face turned away, and the ear on
    the far side of a head. heads (F, 3, 3) turns the head node's space into the world; None: faces are not judged.
    """
    seen = torch.stack([camera.project(place, width, height) for camera, place in zip(cameras, places)])
    near = torch.tensor([camera.near for camera in cameras])[:, None]
    size = torch.tensor([width, height])
    inside = ((seen[..., :2] >= 0) & (seen[..., :2] < size)).all(-1)
    scores = (inside & (seen[..., 2] > near) & known).float()
    points = torch.where(torch.isfinite(seen[..., :2]), seen[..., :2], torch.zeros(())).clamp(-1e6, 1e6)
    if heads is not None and body.forward is not None:
        looking = torch.nn.functional.normalize(heads @ body.forward, dim=-1)
        back = torch.stack([camera.axes[:, 2].float() for camera in cameras])
        leftward = _unit(places[:, NAMES.index("left_shoulder")] - places[:, NAMES.index("right_shoulder")])
        leftward = _unit(leftward - (leftward * looking).sum(-1, keepdim=True) * looking)
        towards, beside = (looking * back).sum(-1), (leftward * back).sum(-1)
        hidden = {"nose": towards < -0.2, "left_ear": beside < -0.35, "right_ear": beside > 0.35}
        hidden["left_eye"] = (towards < -0.1) | (beside < -0.85)
        hidden["right_eye"] = (towards < -0.1) | (beside > 0.85)
        for name, away in hidden.items():
            scores[away, NAMES.index(name)] = 0.0
    return points, scores


def _unit(vectors: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vectors, dim=-1)


def _face(avatar: Avatar, nodes: dict[str, int], head: int) -> tuple[dict[str, tuple[int, Tensor]], Tensor]:
    """Nose, eyes and ears on the surface of the head at rest, in the head node's space; and where the face looks."""
    rest = node_matrices(avatar.skeleton, None, torch.zeros(1))
    points, _ = skin(avatar.to("cpu"), joint_matrices(avatar, rest)[0])
    at = {name: rest[0, node, :3, 3] for name, node in nodes.items()}
    left = _unit(at["left_shoulder"] - at["right_shoulder"])
    up = rest[0, head, :3, 3] - (at["left_hip"] + at["right_hip"]) / 2
    up = _unit(up - (up * left).sum() * left)
    frame = torch.stack([left, up, torch.linalg.cross(left, up)])
    inverse = torch.linalg.inv(rest[0, head])
    forward = inverse[:3, :3] @ frame[2]
    below = _descendants(avatar, head)
    own = torch.tensor([node in below for node in avatar.joint_nodes.tolist()])
    share = (avatar.weights.cpu() * own[avatar.joints.cpu()]).sum(1)
    skull = (points[share > 0.6] - rest[0, head, :3, 3]) @ frame.T
    if len(skull) < 8:
        return {}, forward
    low, high = skull.amin(0), skull.amax(0)
    middle, half = (low + high) / 2, (high - low) / 2
    carried = {}
    for name in _FACE:
        kind = name.split("_")[-1]
        out = _FACE_OUT[kind] * half[0] * (1 if name.startswith("left") else -1)
        place = torch.stack([middle[0] + out, low[1] + 2 * _FACE_UP[kind] * half[1], middle[2]])
        if kind != "ear":
            around = (skull[:, :2] - place[:2]).norm(dim=-1) < 0.3 * half[0]
            place[2] = skull[around, 2].amax() if around.any() else high[2] - 0.15 * half[2]
        world = rest[0, head, :3, 3] + frame.T @ place
        carried[name] = (head, inverse[:3, :3] @ world + inverse[:3, 3])
    return carried, forward


def _descendants(avatar: Avatar, root: int) -> set[int]:
    found = {root}
    for node in avatar.skeleton.order:
        if avatar.skeleton.parents[node] in found:
            found.add(node)
    return found
