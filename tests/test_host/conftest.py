from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from host.environment import ROOT, comfyui_path
from host.media import put_clip, put_photo
from host.models import NAME, put_models
from host.server import ComfyServer

WORKFLOWS = sorted((Path(ROOT) / "workflows").glob("*.json"))
# Choices of files, and sizes that a small random model can do on a CPU. Nothing else of a workflow may need a change.
SMALL = {
    "LoadCogVideoXI2V": {"model": NAME},
    "ApplyRefAdapter": {"adapter_file": f"refadapter/{NAME}.safetensors"},
    "LoadFAEEmbedding": {"fae_file": f"fae/{NAME}.safetensors"},
    "LoadImage": {"image": "photo.png"},
    "LoadVideo": {"file": "clip.mp4"},
    "FlexiActSampler": {"width": 64, "height": 64, "num_frames": 17, "steps": 3},
    "TrainFAE": {"steps": 2, "crops": 2},
}


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items):
    for item in items:
        if "server" in getattr(item, "fixturenames", ()):
            # All in one process of pytest-xdist: the server is started once.
            item.add_marker(pytest.mark.xdist_group("host"))


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """A running ComfyUI with the pack, small random models, photo.png and clip.mp4."""
    if not os.path.isfile(os.path.join(comfyui_path(), "main.py")):
        pytest.fail("There is no ComfyUI to test in: run `make test`, or `make setup` once.")
    host = ComfyServer(tmp_path_factory.mktemp("host"))
    put_models(host.base / "models")
    put_photo(host.base / "input")
    put_clip(host.base / "input")
    with host:
        yield host


@pytest.fixture(scope="session")
def object_info(server):
    return server.object_info()


def load_workflow(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def fit_to_small_model(prompt: dict) -> dict:
    """`prompt` with other files, and sizes for the small model."""
    return {key: {**node, "inputs": node["inputs"] | SMALL.get(node["class_type"], {})} for key, node in prompt.items()}
