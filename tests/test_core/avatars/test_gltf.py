"""What a glTF says in any of its ways becomes the same numbers."""

import io
import json

import numpy as np
import pytest
import torch
from gltf_models import ARM_POINTS, Model, add_clip, arm, to_glb, triangle
from PIL import Image

from flexiact_core.avatars.gltf import load_avatar, read_avatar

CORNERS = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])


def picture(colours: list, kind: str = "PNG") -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.array(colours, np.uint8)).save(content, kind, lossless=True)
    return content.getvalue()


def test_a_glb_an_embedded_gltf_and_one_with_files_beside_it_are_the_same(tmp_path):
    model = arm()
    data = model.finished()
    data["buffers"][0]["uri"] = "part%20one/arm.bin"
    (tmp_path / "part one").mkdir()
    (tmp_path / "part one" / "arm.bin").write_bytes(model.blob)
    (tmp_path / "arm.gltf").write_text(json.dumps(data))
    avatars = [read_avatar(model.glb()), read_avatar(model.embedded()), load_avatar(tmp_path / "arm.gltf")]
    for avatar in avatars:
        torch.testing.assert_close(avatar.vertices, torch.tensor(ARM_POINTS, dtype=torch.float32))
        assert avatar.joints[:, 0].tolist() == [0, 0, 0, 1, 1, 1]
        assert [clip.name for clip in avatar.clips] == ["bend"] and avatar.clips[0].duration == 1
        assert avatar.skeleton.names == ("root", "tip", "body") and avatar.notes == ()


def test_interleaved_attributes_are_taken_apart():
    model = Model()
    rows = b"".join(
        np.array(point, "<f4").tobytes() + bytes(colour)
        for point, colour in zip(CORNERS.tolist(), ([255, 0, 0, 255], [0, 255, 0, 255], [0, 0, 255, 255]))
    )
    view = model.view(b"head" + rows, byteStride=16)
    position = model.entry(bufferView=view, byteOffset=4, componentType=5126, count=3, type="VEC3")
    colour = model.entry(bufferView=view, byteOffset=16, componentType=5121, count=3, type="VEC4", normalized=True)
    model.data["meshes"] = [{"primitives": [{"attributes": {"POSITION": position, "COLOR_0": colour}}]}]
    model.data["nodes"] = [{"mesh": 0}]
    avatar = read_avatar(model.glb())
    torch.testing.assert_close(avatar.vertices, CORNERS)
    torch.testing.assert_close(avatar.colours, torch.eye(3))


@pytest.mark.parametrize("kind", ["u1", "u2"])
def test_joints_may_be_bytes_or_shorts(kind):
    assert read_avatar(arm(kind).glb()).joints[:, 0].tolist() == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(("kind", "most"), [("u1", 255), ("u2", 65535)])
def test_normalised_weights_are_shares(kind, most):
    model = arm(clip=False)
    rows = [[most // 5 * 4, most // 5, 0, 0]] * 6
    weights = model.accessor(rows, kind, normalized=True)
    model.data["meshes"][0]["primitives"][0]["attributes"]["WEIGHTS_0"] = weights
    torch.testing.assert_close(read_avatar(model.glb()).weights[:, :2], torch.tensor([[0.8, 0.2]]).expand(6, 2))


def test_signed_normalised_numbers_reach_minus_one_twice():
    """glTF 2.0 section 3.6.2.2: max(c / 127, -1)."""
    model = arm(clip=False)
    add_clip(model, "turn", [0, 1], [[0, 0, 0, 127], [0, 0, -128, 0]], 1, kind="i1", normalized=True)
    assert read_avatar(model.glb()).clips[0].channels[0].values.tolist() == [[0, 0, 0, 1], [0, 0, -1, 0]]


def test_a_sparse_accessor_replaces_single_rows():
    model = triangle()
    indices, values = model.view(np.array([2], "<u2").tobytes()), model.view(np.array([0, 3, 1], "<f4").tobytes())
    model.data["accessors"][0]["sparse"] = {
        "count": 1, "indices": {"bufferView": indices, "componentType": 5123}, "values": {"bufferView": values},
    }  # fmt: skip
    assert read_avatar(model.glb()).vertices.tolist() == [[0, 0, 0], [1, 0, 0], [0, 3, 1]]


def test_a_sparse_accessor_without_a_view_starts_from_zeros():
    model = triangle()
    model.data["accessors"][0].pop("bufferView")
    indices = model.view(np.array([1, 2], "<u1").tobytes())
    values = model.view(np.array([[1, 0, 0], [0, 1, 0]], "<f4").tobytes())
    model.data["accessors"][0]["sparse"] = {
        "count": 2, "indices": {"bufferView": indices, "componentType": 5121}, "values": {"bufferView": values},
    }  # fmt: skip
    torch.testing.assert_close(read_avatar(model.glb()).vertices, CORNERS)


@pytest.mark.parametrize(
    ("mode", "faces"), [(4, [[0, 1, 2]]), (5, [[0, 1, 2], [2, 1, 3]]), (6, [[0, 1, 2], [0, 2, 3]])]
)
def test_lists_strips_and_fans_wind_the_same_way(mode, faces):
    model = triangle(points=[[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    model.data["meshes"][0]["primitives"][0]["mode"] = mode
    assert read_avatar(model.glb()).faces.tolist() == faces


def test_points_and_morph_targets_are_left_out_and_said():
    model = triangle()
    primitives = model.data["meshes"][0]["primitives"]
    primitives[0]["targets"] = [{"POSITION": 0}]
    primitives.append({"attributes": {"POSITION": 0}, "mode": 0})
    avatar = read_avatar(model.glb())
    assert len(avatar.faces) == 1
    assert {"Morph targets are left out.", "Points and lines are left out."} < set(avatar.notes)


def test_a_model_without_skin_is_rigid_and_without_clips_at_rest_and_both_are_said():
    notes = read_avatar(triangle().glb()).notes
    assert notes == ("The model has no clips: it stands at rest.", "The model has no skin: it is drawn rigid.")


def test_only_the_default_scene_is_shown():
    model = triangle()
    model.data["nodes"] += [{"children": [2]}, {"mesh": 0}, {"mesh": 0}]
    model.data |= {"scene": 1, "scenes": [{"nodes": [0, 3]}, {"nodes": [1]}]}
    assert read_avatar(model.glb()).joint_nodes.tolist() == [2]


def test_weights_that_do_not_sum_to_one_are_scaled_and_none_follow_the_first_joint():
    weights = [[2, 0, 0, 0], [0.25, 0.25, 0, 0], [0, 0, 0, 0]] + [[1, 0, 0, 0]] * 3
    avatar = read_avatar(arm(weights=weights, joints=[[1, 0, 0, 0]] * 6).glb())
    torch.testing.assert_close(avatar.weights.sum(1), torch.ones(6))
    assert avatar.weights[1].tolist() == [0.5, 0.5, 0, 0] and avatar.joints[2, 0] == 0
    assert avatar.notes == ("1 vertices have no weights: they follow the skin's first joint.",)


def test_joints_of_no_weight_may_be_called_anything():
    assert read_avatar(arm(joints=[[0, 200, 99, 7]] * 3 + [[1, 9, 9, 9]] * 3).glb()).joints.amax() == 1


def test_normals_of_a_model_that_has_none_are_of_the_smooth_surface():
    avatar = read_avatar(triangle().glb())
    torch.testing.assert_close(avatar.normals, torch.tensor([[0.0, 0, 1]]).expand(3, 3))


def test_a_texture_and_its_transform_are_read():
    model = triangle(TEXCOORD_0=([[0, 0], [1, 0], [0, 1]],))
    image = {"bufferView": model.view(picture([[[255, 0, 0], [0, 255, 0]]])), "mimeType": "image/png"}
    moved = {"offset": [0.5, 0], "scale": [2, 3]}
    texture = {"index": 0, "extensions": {"KHR_texture_transform": moved}}
    model.data |= {
        "images": [image],
        "textures": [{"source": 0}],
        "extensionsRequired": ["KHR_texture_transform"],
        "materials": [
            {
                "pbrMetallicRoughness": {"baseColorTexture": texture, "baseColorFactor": [0.5, 1, 1, 0.25]},
                "alphaMode": "MASK",
                "alphaCutoff": 0.125,
                "doubleSided": True,
            }
        ],
    }
    model.data["meshes"][0]["primitives"][0]["material"] = 0
    avatar = read_avatar(model.glb())
    material = avatar.materials[int(avatar.face_material[0])]
    assert material.texture[0, :, :3].tolist() == [[255, 0, 0], [0, 255, 0]]
    assert (material.alpha, material.cutoff, material.double_sided) == (0.25, 0.125, True)
    torch.testing.assert_close(avatar.uvs, torch.tensor([[0.5, 0], [2.5, 0], [0.5, 3]]))
    torch.testing.assert_close(avatar.colours, torch.tensor([[0.5, 1, 1]]).expand(3, 3))


def test_a_large_texture_is_averaged_down():
    model = triangle(TEXCOORD_0=([[0, 0], [1, 0], [0, 1]],))
    stripes = np.zeros((2, 4096, 3), np.uint8)
    stripes[:, ::2] = 200
    model.data |= {
        "images": [{"bufferView": model.view(picture(stripes, "WEBP"))}],
        "textures": [{"extensions": {"EXT_texture_webp": {"source": 0}}}],
        "materials": [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}],
    }
    model.data["meshes"][0]["primitives"][0]["material"] = 0
    texture = read_avatar(model.glb()).materials[1].texture
    assert texture.shape == (1, 1024, 4) and set(texture[..., 0].flatten().tolist()) == {100}


def test_a_mirrored_thing_does_not_turn_inside_out():
    model = triangle()
    model.data["nodes"][0]["scale"] = [-1, 1, 1]
    assert read_avatar(model.glb()).faces.tolist() == [[0, 2, 1]]


def test_what_follows_the_glb_s_length_is_ignored():
    model = triangle()
    assert len(read_avatar(to_glb(model.finished(), model.blob) + b"trailing").faces) == 1
