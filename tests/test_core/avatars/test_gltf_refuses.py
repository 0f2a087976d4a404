"""Files that are broken, compressed, too large or point elsewhere are refused in a sentence, before memory is taken."""

import json
import struct
import tracemalloc

import pytest
from gltf_models import add_clip, arm, to_glb, triangle

from flexiact_core.avatars.gltf import load_avatar, read_avatar
from flexiact_core.errors import FileError


def refused(content: bytes, folder=None) -> str:
    with pytest.raises(FileError) as error:
        read_avatar(content, "model.glb", folder)
    assert str(error.value).startswith("model.glb: ") and len(str(error.value)) < 400
    return str(error.value)


def changed(change, model=None) -> str:
    """What is said of a model whose JSON `change` has had its hand on."""
    model = model or triangle()
    data = model.finished()
    change(data)
    return refused(to_glb(data, model.blob))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"v 0 0 0\nf 1 1 1\n",
        b"solid thing\n",
        b"ply\nformat ascii 1.0\n",
        b"Kaydara FBX Binary  \0",
        b"\x1f\x8bspz",
    ],
    ids=["empty", "obj", "stl", "ply", "fbx", "spz"],
)
def test_other_kinds_of_file_are_named_for_what_is_needed(content):
    assert "a .glb or .gltf file with a skin and a clip is needed" in refused(content)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileError, match="there is no such file"):
        load_avatar(tmp_path / "gone.glb")


@pytest.mark.parametrize("length", [5, 16, 30, -4, -1])
def test_a_glb_that_is_cut_off(length):
    assert refused(triangle().glb()[:length])


@pytest.mark.parametrize(
    ("at", "value", "said"),
    [(4, 1, "version 1"), (8, 10**6, "1000000 bytes"), (12, 10**9, "ends outside"), (16, 7, "no JSON chunk")],
)
def test_a_glb_whose_header_is_wrong(at, value, said):
    content = bytearray(triangle().glb())
    struct.pack_into("<I", content, at, value)
    assert said in refused(bytes(content))


@pytest.mark.parametrize(
    "text",
    ['{"asset": {"version": "2.0"', '{"a": NaN}', "{" * 3 + '"a":' + "[" * 200000, '{"asset": {"version": "1.0"}}'],
)
def test_json_that_is_none(text):
    assert refused(text.encode())


@pytest.mark.parametrize(
    "extension", ["KHR_draco_mesh_compression", "EXT_meshopt_compression", "KHR_texture_basisu", "ACME_secret"]
)
def test_what_is_needed_and_not_read_is_named(extension):
    assert extension in changed(lambda data: data.update(extensionsRequired=[extension]))


def test_meshopt_and_draco_are_seen_where_they_are_used():
    assert "meshopt" in changed(lambda d: d["bufferViews"][0].update(extensions={"EXT_meshopt_compression": {}}))

    def draco(data):
        data["meshes"][0]["primitives"][0]["extensions"] = {"KHR_draco_mesh_compression": {}}
        data["accessors"][0].pop("bufferView")

    assert "Draco" in changed(draco)


def test_offsets_outside_the_buffer():
    assert "past its buffer" in changed(lambda d: d["bufferViews"][0].update(byteOffset=1000))
    assert "past its buffer" in changed(lambda d: d["bufferViews"][0].update(byteLength=10**9))
    assert "bytes of bufferView" in changed(lambda d: d["accessors"][0].update(byteOffset=4))
    assert "bytes of bufferView" in changed(lambda d: d["accessors"][0].update(count=4))
    assert "bytes of bufferView" in changed(lambda d: d["bufferViews"][0].update(byteStride=2))
    assert "cut off" in changed(lambda d: d["buffers"][0].update(byteLength=10**6))
    assert "no bytes" in changed(
        lambda d: d["buffers"].append({"byteLength": 8}) or d["bufferViews"][0].update(buffer=1)
    )


@pytest.mark.parametrize("value", [-1, 1.5, True, "3", None, 2**62])
def test_counts_that_are_none(value):
    assert changed(lambda d: d["accessors"][0].update(count=value))
    assert changed(lambda d: d["bufferViews"][0].update(byteLength=value))


@pytest.mark.parametrize("index", [-1, 99, 0.5, True, "0", None, [0]])
def test_links_to_nothing(index):
    assert changed(
        lambda d: d["accessors"][0].update(bufferView=index) if index is not None else d.update(accessors=[])
    )
    assert changed(lambda d: d["nodes"][0].update(mesh=index))
    assert changed(lambda d: d["nodes"][0].update(children=[index]))
    assert changed(lambda d: d["meshes"][0]["primitives"][0].update(indices=index))
    assert changed(lambda d: d["meshes"][0]["primitives"][0].update(material=index))


@pytest.mark.parametrize("key", ["nodes", "accessors", "bufferViews", "buffers", "meshes", "materials", "animations"])
@pytest.mark.parametrize("value", [7, "x", {"a": 1}, [1], [None]])
def test_lists_that_are_none(key, value):
    assert changed(lambda d: d.update({key: value}))


def test_a_huge_count_takes_no_memory():
    def change(data):
        data["accessors"][0].update(count=2_900_000, type="VEC3")
        data["accessors"][0].pop("bufferView")
        data["accessors"] += [dict(data["accessors"][0]) for _ in range(30)]
        attributes = {"POSITION": 0, "NORMAL": 1, "COLOR_0": 2}
        data["meshes"][0]["primitives"] = [{"attributes": attributes, "indices": 3}] * 12

    tracemalloc.start()
    said = changed(change)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "Reduce the model" in said and peak < 5e6


def test_more_numbers_than_a_file_can_hold():
    model = arm(clip=False)
    zeros = {"componentType": 5126, "count": 20_000_000, "type": "VEC4"}
    add_clip(model, "long", [0], [[0, 0, 0, 1]], 1)

    def change(data):
        data["accessors"].append(zeros)
        data["animations"][0]["samplers"][0]["output"] = len(data["accessors"]) - 1

    assert "hold more than" in changed(change, model)


def test_more_than_a_million_triangles():
    def change(data):
        data["accessors"].append({"componentType": 5125, "count": 3_000_003, "type": "SCALAR"})
        data["meshes"][0]["primitives"][0]["indices"] = len(data["accessors"]) - 1

    assert "1000001 triangles" in changed(change)


def test_a_million_triangles_in_many_places_count_too():
    model = triangle()
    model.data["nodes"] = [{"mesh": 0} for _ in range(10_000)]
    model.data["meshes"][0]["primitives"] *= 101  # and no more than needed is looked at
    assert "1000001 triangles" in refused(model.glb())


def test_more_than_1024_joints():
    model = arm(clip=False)
    model.data["skins"][0]["joints"] = [0] * 1025
    assert "1024 joints" in refused(model.glb())


def test_too_many_nodes():
    model = triangle()
    model.data["nodes"] += [{}] * 20_000
    assert "20001 nodes" in refused(model.glb())


def test_nodes_in_a_circle_or_with_two_parents():
    assert "own ancestors" in changed(lambda d: d["nodes"][0].update(children=[0]))
    assert "own ancestors" in changed(lambda d: d.update(nodes=[{"children": [1]}, {"children": [0], "mesh": 0}]))
    assert "two parents" in changed(lambda d: d.update(nodes=[{"children": [1, 1]}, {"mesh": 0}]))


@pytest.mark.parametrize("key", ["translation", "rotation", "scale", "matrix"])
@pytest.mark.parametrize("value", [[1, 2], "abc", [1e40] * 16, [None] * 3])
def test_transforms_that_are_none(key, value):
    assert key in changed(lambda d: d["nodes"][0].update({key: value}))


@pytest.mark.parametrize(
    "uri",
    ["../secret.bin", "/etc/hostname", "a/../../secret.bin", "%2e%2e/secret.bin", "http://somewhere/x.bin", "file:///x",
     "..\\secret.bin", "C:/secret.bin", "link.bin", "missing.bin", "x\0y", 7],
)  # fmt: skip
def test_buffers_outside_the_folder_are_not_read(uri, tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(b"\0" * 1000)
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    data = triangle().finished()
    data["buffers"][0]["uri"] = uri
    assert "buffer 0" in refused(json.dumps(data).encode(), folder)


def test_a_gltf_from_memory_reads_no_files():
    data = triangle().finished()
    data["buffers"][0]["uri"] = "triangle.bin"
    assert "did not come along" in refused(json.dumps(data).encode())


def test_damaged_base64():
    data = triangle().finished()
    data["buffers"][0]["uri"] = "data:application/octet-stream;base64,@@@"
    assert "base64" in refused(json.dumps(data).encode())


@pytest.mark.parametrize("kinds", [{"type": "VEC2"}, {"componentType": 5124}, {"componentType": None}])
def test_attributes_of_another_type(kinds):
    assert changed(lambda d: d["accessors"][0].update(kinds))


def test_numbers_that_are_not_finite():
    assert "not finite" in refused(triangle(points=[[0, 0, float("nan")], [1, 0, 0], [0, 1, 0]]).glb())


def test_corners_and_joints_that_are_not_there():
    model = triangle()
    model.data["meshes"][0]["primitives"][0]["indices"] = model.accessor([[0], [1], [3]], "u1")
    assert "vertex 3 of 3" in refused(model.glb())
    assert "joint 2 of 2" in refused(arm(joints=[[2, 0, 0, 0]] * 6).glb())
    assert "rows for 3 vertices" in refused(triangle(COLOR_0=([[1, 1, 1]],)).glb())


def test_a_model_without_triangles():
    model = triangle()
    model.data["nodes"] = [{}]
    assert "no triangles" in refused(model.glb())
    model = triangle()
    model.data["meshes"][0]["primitives"][0]["mode"] = 1
    assert "no triangles" in refused(model.glb())


@pytest.mark.parametrize(
    ("times", "values", "way", "said"),
    [
        ([0, 1], [[0, 0, 0, 1]], "LINEAR", "1 values at 2 times"),
        ([1, 0], [[0, 0, 0, 1]] * 2, "LINEAR", "times that fall"),
        ([0, 1], [[0, 0, 0, 1]] * 2, "CUBICSPLINE", "2 values at 2 times"),
        ([0, 1], [[0, 0, 0, 1]] * 2, "WOBBLE", "WOBBLE"),
        ([0, 1], [[0, 0, 0]] * 2, "LINEAR", "VEC3"),
    ],
)
def test_clips_that_are_damaged(times, values, way, said):
    model = arm(clip=False)
    add_clip(model, "broken", times, values, 1, way=way)
    assert said in refused(model.glb())


def test_pictures_that_are_damaged_or_enormous():
    def textured(content):
        model = triangle()
        model.data |= {
            "images": [{"bufferView": model.view(content)}],
            "textures": [{"source": 0}],
            "materials": [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}],
        }
        return refused(model.glb())

    assert "image 0" in textured(b"no picture")
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    import zlib

    chunk = b"IHDR" + header
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    idat = b"IDAT" + zlib.compress(b"")
    assert "image 0" in textured(png + struct.pack(">I", len(idat) - 4) + idat + struct.pack(">I", zlib.crc32(idat)))


def test_a_ktx2_texture_without_another_is_named():
    def change(data):
        data["textures"] = [{"extensions": {"KHR_texture_basisu": {"source": 0}}}]
        data["materials"] = [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}]

    assert "KTX2" in changed(change)
