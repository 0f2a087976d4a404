"""The avatar nodes, called as ComfyUI calls them; and ComfyUI's own camera, viewer types and pose drawing."""

import io as files
import math

import pytest
import torch

avatars = pytest.importorskip("flexiact_pack.nodes.avatars", reason="needs ComfyUI: run `make test`")

from gltf_models import arm, triangle  # noqa: E402

from flexiact_core.avatars import camera, shipped  # noqa: E402
from flexiact_core.errors import FileError, SettingError  # noqa: E402

PLACE = {
    "person": "man", "clip": "walk", "x": 0.0, "z": 0.0, "turn": 0.0, "scale": 1.0, "fit": True, "start": 0.0,
    "speed": 1.0, "after": "loop", "tint": "#ffffff",
}  # fmt: skip
RENDER = {
    "move": "still", "amount": 0.0, "num_frames": 2, "fps": 8.0, "width": 64, "height": 96, "antialias": 2,
    "background": "#000000", "light": 0.6,
}  # fmt: skip


@pytest.fixture(autouse=True)
def running_node(monkeypatch):
    """What ComfyUI sets up around a node, and what the node says."""
    from comfy_execution.graph import DynamicPrompt
    from comfy_execution.progress import reset_progress_state
    from comfy_execution.utils import CurrentNodeContext

    said = []
    monkeypatch.setattr(avatars, "say", said.append)
    reset_progress_state("prompt", DynamicPrompt({"node": {"class_type": "RenderAvatars", "inputs": {}}}))
    with CurrentNodeContext("prompt", "node"), torch.inference_mode():
        yield said


def place(**changes):
    return avatars.PlaceAvatar.execute(**PLACE | changes).args[0]


def render(scene, **changes):
    return avatars.RenderAvatars.execute(scene=scene, **RENDER | changes).args


def in_memory(content: bytes, kind: str):
    from comfy_api.latest import Types

    return Types.File3D(files.BytesIO(content), kind)


def test_the_lists_are_those_of_the_core():
    assert avatars.PEOPLE == shipped.SHIPPED and avatars.MOVES == camera.MOVES


@pytest.mark.parametrize("node", ["PlaceAvatar", "RenderAvatars"])
def test_inputs_of_execute_are_those_of_the_schema(node):
    schema = getattr(avatars, node).define_schema()
    defaults = {item.id: getattr(item, "default", None) for item in schema.inputs if not item.optional}
    known = PLACE if node == "PlaceAvatar" else RENDER | {"scene": None}
    assert defaults.keys() == known.keys()


def test_two_placed_people_are_filmed():
    scene = place(scene=place(x=-0.5), person="woman", x=0.5, clip="wave")
    frames, mask, poses, fps, last = render(scene, move="orbit", amount=30.0)
    assert frames.shape == (2, 96, 64, 3) and mask.shape == (2, 96, 64) and fps == 8.0
    assert 0.05 < float(mask.mean()) < 0.6 and frames[mask == 0].amax() == 0
    assert [len(frame["people"]) for frame in poses] == [2, 2]
    assert (poses[0]["canvas_width"], poses[0]["canvas_height"]) == (64, 96)
    assert last["cameraType"] == "perspective" and last["position"]["x"] > 0


def test_the_last_camera_starts_the_next_shot():
    scene = place(clip="wave", after="hold", start=600.0)
    *_, last = render(scene, move="orbit", amount=40.0)
    end = render(scene, move="orbit", amount=40.0)[0][-1]
    torch.testing.assert_close(render(scene, camera_info=last)[0][0], end, atol=2e-3, rtol=0)


def test_core_draws_the_poses_at_the_same_size():
    from comfy_extras.nodes_sdpose import SDPoseDrawKeypoints

    _, mask, poses, *_ = render(place(), width=256, height=256)
    drawn = SDPoseDrawKeypoints.execute(poses, True, True, True, False, 4, 3, 0.3, True).args[0]
    assert drawn.shape == (2, 256, 256, 3)
    skeleton = drawn.amax(-1) > 0.2
    assert skeleton.any() and float(mask[skeleton].mean()) > 0.9


def test_models_from_memory_and_from_disk(tmp_path, running_node):
    (tmp_path / "arm.glb").write_bytes(arm().glb())
    from comfy_api.latest import Types

    disk = place(model_3d=Types.File3D(str(tmp_path / "arm.glb")), clip="bend")
    memory = place(model_3d=in_memory(arm().glb(), "glb"), clip="")
    assert torch.equal(render(disk)[0], render(memory)[0])
    assert running_node[0].startswith("arm: no human skeleton")


@pytest.mark.parametrize("kind", ["obj", "stl", "fbx", "ply", "splat"])
def test_other_files_of_the_viewer_are_named_for_what_is_needed(kind):
    with pytest.raises(FileError, match=f"model.{kind}: a .glb or .gltf file with a skin and a clip is needed"):
        place(model_3d=in_memory(b"o thing\nv 0 0 0\n", kind))


def test_what_a_model_lacks_is_said(running_node):
    render(place(model_3d=in_memory(triangle().glb(), "glb")))
    assert "no skin: it is drawn rigid" in running_node[0] and "no clips: it stands at rest" in running_node[0]


def test_a_view_of_nothing_is_black_and_said(running_node):
    info = {"position": {"x": 0, "y": 1, "z": 4}, "target": {"x": 0, "y": 1, "z": 9}}
    frames, mask, poses, *_ = render(place(), camera_info=info)
    assert frames.amax() == 0 and mask.amax() == 0 and [frame["people"] for frame in poses] == [[], []]
    assert "No avatar is in view in any frame" in running_node[0]


def test_settings_that_cannot_be_used_are_sentences():
    with pytest.raises(SettingError, match="Its clips: walk"):
        place(clip="fly")
    with pytest.raises(SettingError, match="tint 'red' is no colour"):
        place(tint="red")
    with pytest.raises(SettingError, match="field of view"):
        render(place(), camera_info={"position": {"z": 4}, "target": {}, "fov": 180})
    with pytest.raises(SettingError, match="zoom by 0"):
        render(place(), move="zoom")


def test_cancel_stops_between_frames():
    import comfy.model_management as memory

    memory.interrupt_current_processing()
    with pytest.raises(memory.InterruptProcessingException):
        render(place())
    assert render(place())[0].shape[0] == 2


def test_scenes_that_flow_are_not_changed():
    first = place()
    second = place(scene=first)
    assert len(first.placements) == 1 and len(second.placements) == 2


ORBIT = {"mode": "orbit", "yaw": 30.0, "pitch": 20.0, "distance": 4.0}
LOOK = {"mode": "look_at", "position_x": 2.0, "position_y": 3.0, "position_z": -1.0}
CORES = {
    "orbit": (ORBIT, {}),
    "look at, zoomed": (LOOK, {"zoom": 1.7}),
    "rolled": (LOOK, {"roll": 25.0, "fov": 60.0}),
    "orthographic": (ORBIT, {"camera_type": "orthographic"}),
    "quaternion": (LOOK | {"mode": "quaternion", "quat_x": 0.1, "quat_y": 0.9, "quat_z": -0.2, "quat_w": 0.3}, {}),
}


@pytest.mark.parametrize("size", [(200, 120), (120, 200)])
@pytest.mark.parametrize("name", CORES)
def test_cores_own_camera_shows_a_point_at_the_same_place(name, size):
    """Render Splat draws one small splat; its middle is where our camera puts the point.

    Render Splat takes a pixel's ray through its corner, ours through its middle, so its number of a pixel is our place.
    """
    splat = pytest.importorskip("comfy_extras.nodes_gaussian_splat")
    mode, more = CORES[name]
    settings = {"target_x": 0.1, "target_y": 0.5, "target_z": -0.2, "roll": 0.0, "fov": 35.0} | more
    info = splat.CreateCameraInfo.execute(mode=mode, **settings).args[0]
    ours = camera.camera_from_dict(info)
    # A little right of the view's middle, above it and nearer.
    right, up, back = ours.axes.T
    away = math.dist(ours.position, ours.target)
    point = torch.tensor(ours.position) + (0.9 * -back * away + 0.12 * away * right + 0.07 * away * up)
    world = point.float()[None]
    _, mask = splat._render_gaussian(
        (world * torch.tensor([1.0, -1, -1])).numpy(), [[1, 1, 1]], [0.99], [[0.01 * away] * 3], [[1, 0, 0, 0]],
        *size, 1.0, (0, 0, 0), info,
    )  # fmt: skip
    weight = mask.float() / mask.sum()
    y, x = torch.meshgrid(*(torch.arange(side).float() for side in size[::-1]), indexing="ij")
    found = torch.stack([(weight * x).sum(), (weight * y).sum()])
    torch.testing.assert_close(ours.project(world, *size)[0, :2].float(), found, atol=0.15, rtol=0)
