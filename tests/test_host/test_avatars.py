"""Avatars in a real ComfyUI: a model and a camera as its 3D viewer gives them; errors in its words."""

import shutil

import numpy as np
import pytest
from host.media import put_photo
from host.server import HostError
from PIL import Image

from flexiact_core.avatars.shipped import avatar_path

VIEW = {
    "position": {"x": 0.4, "y": 1.2, "z": 4.0},
    "target": {"x": 0.0, "y": 0.9, "z": 0.0},
    "zoom": 1,
    "cameraType": "perspective",
    "fov": 35,
}
WHERE = {
    "position": dict.fromkeys("xyz", 0.0),
    "quaternion": {"x": 0, "y": 0, "z": 0, "w": 1},
    "scale": dict.fromkeys("xyz", 1.0),
}
PLACE = {
    "person": "man", "clip": "wave", "x": 0.0, "z": 0.0, "turn": 0.0, "scale": 1.0, "fit": True, "start": 1.0,
    "speed": 1.0, "after": "loop", "tint": "#ffffff",
}  # fmt: skip
RENDER = {
    "move": "still", "amount": 0.0, "num_frames": 2, "fps": 8.0, "width": 128, "height": 128, "antialias": 2,
    "background": "#000000", "light": 0.6,
}  # fmt: skip


def graph(file: str, **view) -> dict:
    """The prompt of a graph in which the 3D viewer gives model, place and camera."""
    state = {"image": "photo.png", "mask": "photo.png", "normal": "photo.png", "recording": ""}
    state |= {"camera_info": VIEW | view, "model_3d_info": [WHERE]}
    nodes = {
        "1": ("Load3D", {"model_file": file, "image": state, "width": 128, "height": 128}),
        "2": ("PlaceAvatar", PLACE | {"model_3d": ["1", 6], "model_3d_info": ["1", 7]}),
        "3": ("RenderAvatars", RENDER | {"scene": ["2", 0], "camera_info": ["1", 4]}),
        "4": ("SaveImage", {"images": ["3", 0], "filename_prefix": "viewer"}),
        "5": ("Preview3D", {"model_file": ["1", 6], "camera_info": ["3", 4]}),
    }
    return {key: {"class_type": kind, "inputs": inputs} for key, (kind, inputs) in nodes.items()}


@pytest.fixture(scope="module")
def models(server):
    folder = server.base / "input" / "3d"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(avatar_path("woman"), folder / "woman.glb")
    (folder / "thing.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    put_photo(server.base / "input")


def test_the_viewers_model_place_and_camera_are_filmed(server, models):
    run = server.run(graph("3d/woman.glb"))
    pictures = [np.asarray(Image.open(file)) for file in server.output_files(run) if file.suffix == ".png"]
    assert len(pictures) == 2 and pictures[0].shape == (128, 128, 3)
    lit = pictures[0].max(-1) > 30
    assert 0.05 < lit.mean() < 0.4 and pictures[0][:, [0, -1]].max() == 0
    # The dress is yellow.
    assert ((pictures[0][..., 0] > 150) & (pictures[0][..., 2] < 90)).mean() > 0.03


@pytest.mark.parametrize(
    ("file", "view", "said"),
    [
        ("3d/thing.obj", {}, "a .glb or .gltf file with a skin and a clip is needed"),
        ("3d/woman.glb", {"fov": 0}, "field of view is 0 degrees"),
    ],
)
def test_what_cannot_be_filmed_is_said_in_the_host(server, models, file, view, said):
    with pytest.raises(HostError, match=said):
        server.run(graph(file, **view))
