from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
from host.environment import ROOT, comfyui_path
from host.media import put_clip, put_photo
from host.models import NAME, put_models
from host.server import ComfyServer
from PIL import Image
from videos import make_video

WORKFLOWS = sorted((Path(ROOT) / "workflows").glob("*.json"))
# Choices of files, and sizes that a small random model can do on a CPU. Nothing else of a workflow may need a change.
SMALL = {
    "LoadCogVideoXI2V": {"model": NAME},
    "ApplyRefAdapter": {"adapter_file": f"refadapter/{NAME}.safetensors"},
    "LoadFAEEmbedding": {"fae_file": f"fae/{NAME}.safetensors"},
    "LoadImage": {"image": "photo.png"},
    "LoadVideo": {"file": "clip.mp4"},
    "FlexiActSampler": {"width": 64, "height": 64, "num_frames": 17, "steps": 3},
    "TrainFAE": {"steps": 2, "crops": 2, "batch_size": 1},
    "PrepareActionClips": {"crops": 2},
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


def put_released_action(models: Path) -> None:
    """In the folder `models` an action in the authors' layout, human/chest, of two clips and two pictures."""
    root = models / "flexiact" / "benchmark"
    videos, captions = root / "reference_videos" / "human" / "chest", root / "captions" / "human" / "chest"
    pictures = root / "target_images" / "human"
    for folder in (videos, captions, pictures):
        folder.mkdir(parents=True, exist_ok=True)
    for number in range(2):
        make_video(videos / f"{number}.mp4", num_frames=70, fps=30)
        Image.fromarray(np.full((60, 80 + number, 3), 90 * number, np.uint8)).save(pictures / f"{number}.webp")
    rows = [[f"benchmark/reference_videos/human/chest/{n}.mp4", 0, 70, 30, 0, "a chest exercise"] for n in range(2)]
    with (captions / "crop.csv").open("w", newline="") as lines:
        csv.writer(lines).writerows([["path", "start", "end", "fps", "mask", "caption"], *rows])
    rows = [[f"benchmark/target_images/human/{number}.webp", f"picture {number}"] for number in range(2)]
    with (captions / "val_image.csv").open("w", newline="") as lines:
        csv.writer(lines).writerows([["Path", "Caption"], *rows])


def load_workflow(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def fit_to_small_model(prompt: dict) -> dict:
    """`prompt` with other files, and sizes for the small model."""
    return {key: {**node, "inputs": node["inputs"] | SMALL.get(node["class_type"], {})} for key, node in prompt.items()}
