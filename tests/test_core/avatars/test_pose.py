"""Clips at a time, and bones that take vertices along, against numbers worked out by hand."""

import math

import pytest
import torch
from gltf_models import ARM_POINTS, add_clip, arm, triangle

from flexiact_core.avatars.avatar import Channel
from flexiact_core.avatars.gltf import read_avatar
from flexiact_core.avatars.pose import joint_matrices, node_matrices, rotation_matrices, sample_channel, skin

HALF = 0.5**0.5


def points_at(avatar, *seconds, clip=""):
    nodes = node_matrices(avatar.skeleton, avatar.clip(clip), torch.tensor(seconds))
    return torch.stack([skin(avatar, joints)[0] for joints in joint_matrices(avatar, nodes)])


def test_at_rest_skinning_is_the_mesh():
    avatar = read_avatar(arm(clip=False).glb())
    torch.testing.assert_close(points_at(avatar, 0.0)[0], torch.tensor(ARM_POINTS, dtype=torch.float32))


def test_a_bone_turned_90_degrees_takes_its_vertices_round_its_own_end():
    avatar = read_avatar(arm().glb())
    bent = points_at(avatar, 1.0)[0]
    # About (1, 0, 0): (1, 0, 0) stays, (2, 0, 0) goes to (1, 1, 0), (1, 0.2, 0) to (0.8, 0, 0).
    expected = [*ARM_POINTS[:3], [1, 0, 0], [1, 1, 0], [0.8, 0, 0]]
    torch.testing.assert_close(bent, torch.tensor(expected, dtype=torch.float32), atol=1e-6, rtol=0)


def test_normals_turn_with_the_bone_and_keep_their_length():
    model = arm()
    model.data["meshes"][0]["primitives"][0]["attributes"]["NORMAL"] = model.accessor([[1, 0, 0]] * 6)
    avatar = read_avatar(model.glb())
    nodes = node_matrices(avatar.skeleton, avatar.clip(), torch.ones(1))
    _, normals = skin(avatar, joint_matrices(avatar, nodes)[0])
    expected = torch.tensor([[1.0, 0, 0]] * 3 + [[0.0, 1, 0]] * 3)
    torch.testing.assert_close(normals, expected, atol=1e-6, rtol=0)


def test_a_vertex_of_two_bones_is_half_way_between():
    weights = [[0.5, 0.5, 0, 0]] * 6
    avatar = read_avatar(arm(joints=[[0, 1, 0, 0]] * 6, weights=weights).glb())
    # (2, 0, 0) stays with the root and goes to (1, 1, 0) with the tip.
    torch.testing.assert_close(points_at(avatar, 1.0)[0, 4], torch.tensor([1.5, 0.5, 0]), atol=1e-6, rtol=0)


def test_rotations_between_keys_run_along_the_arc():
    avatar = read_avatar(arm().glb())
    angles = [0.0, 0.25, 0.5, 1.0]
    tips = points_at(avatar, *angles)[:, 4]
    expected = [[1 + math.cos(a * math.pi / 2), math.sin(a * math.pi / 2), 0] for a in angles]
    torch.testing.assert_close(tips, torch.tensor(expected), atol=1e-6, rtol=0)


def test_the_shorter_arc_is_taken():
    model = arm(clip=False)
    add_clip(model, "bend", [0, 1], [[0, 0, 0, 1], [0, 0, -HALF, -HALF]], 1)
    tip = points_at(read_avatar(model.glb()), 0.5)[0, 4]
    torch.testing.assert_close(tip, torch.tensor([1 + HALF, HALF, 0]), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("way", "values", "at", "expected"),
    [
        ("LINEAR", [[0, 0, 0], [4, 8, 0]], 2.5, [1, 2, 0]),
        ("STEP", [[0, 0, 0], [4, 8, 0]], 3.999, [0, 0, 0]),
        ("STEP", [[0, 0, 0], [4, 8, 0]], 4.0, [4, 8, 0]),
        ("LINEAR", [[1, 1, 1], [4, 8, 0]], 0.0, [1, 1, 1]),
        ("LINEAR", [[1, 1, 1], [4, 8, 0]], 9.0, [4, 8, 0]),
        # Appendix C by hand, t 1/4 of 2 s: (27/32) * 2 + (5/32) * 4 + 2 * (9/64) * 1 + 2 * (-3/64) * 2 = 2.40625.
        ("CUBICSPLINE", [[[0] * 3, [2, 0, 0], [1, 0, 0]], [[2, 0, 0], [4, 0, 0], [0] * 3]], 2.5, [2.40625, 0, 0]),
    ],
)
def test_each_way_between_keys(way, values, at, expected):
    channel = Channel(0, "translation", way, torch.tensor([2.0, 4.0]), torch.tensor(values, dtype=torch.float32))
    torch.testing.assert_close(
        sample_channel(channel, torch.tensor([at]))[0], torch.tensor(expected, dtype=torch.float32)
    )


def test_a_clip_of_one_key_holds():
    channel = Channel(0, "scale", "LINEAR", torch.tensor([1.0]), torch.tensor([[2.0, 3.0, 4.0]]))
    assert sample_channel(channel, torch.tensor([0.0, 1.0, 5.0])).tolist() == [[2, 3, 4]] * 3


def test_move_turn_and_scale_apply_from_the_inside_out_and_a_matrix_says_the_same():
    parts = triangle(points=[[1, 0, 0], [2, 0, 0], [1, 1, 0]])
    parts.data["nodes"][0] |= {"translation": [10, 0, 0], "rotation": [0, 0, HALF, HALF], "scale": [2, 3, 4]}
    whole = triangle(points=[[1, 0, 0], [2, 0, 0], [1, 1, 0]])
    # Columns: (0, 2, 0), (-3, 0, 0), (0, 0, 4), (10, 0, 0).
    whole.data["nodes"][0]["matrix"] = [0, 2, 0, 0, -3, 0, 0, 0, 0, 0, 4, 0, 10, 0, 0, 1]
    expected = torch.tensor([[10.0, 2, 0], [10, 4, 0], [7, 2, 0]])
    for model in (parts, whole):
        torch.testing.assert_close(points_at(read_avatar(model.glb()), 0.0)[0], expected, atol=1e-5, rtol=0)


def test_children_follow_their_parents_wherever_they_stand_in_the_list():
    model = triangle()
    # The parent stands last, and the grandchild first.
    model.data["nodes"] = [
        {"mesh": 0, "translation": [1, 0, 0]},
        {"children": [0], "rotation": [0, 0, HALF, HALF]},
        {"children": [1], "translation": [0, 0, 5]},
    ]
    torch.testing.assert_close(points_at(read_avatar(model.glb()), 0.0)[0, 0], torch.tensor([0.0, 1, 5]))


def test_rotation_matrices_are_scipys():
    from scipy.spatial.transform import Rotation

    quaternions = Rotation.random(20, random_state=3).as_quat()
    torch.testing.assert_close(
        rotation_matrices(torch.tensor(quaternions)), torch.tensor(Rotation.from_quat(quaternions).as_matrix())
    )


def test_a_model_without_clips_stands_whatever_clip_is_named():
    avatar = read_avatar(arm(clip=False).glb())
    assert avatar.clip() is None and avatar.clip("walk") is None
