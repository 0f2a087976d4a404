"""What tests of nodes share: model folders of their own, a small random base as a socket carries it, a running node."""

from __future__ import annotations

import shutil

import pytest


@pytest.fixture(autouse=True)
def readable(tmp_path_factory, monkeypatch):
    """ComfyUI's input folder is the one that holds all folders of these tests: nodes read nothing beside it."""
    folder_paths = pytest.importorskip("folder_paths", reason="needs ComfyUI: run `make test`")
    monkeypatch.setattr(folder_paths, "get_input_directory", lambda: str(tmp_path_factory.getbasetemp()))


@pytest.fixture
def model_folders(tmp_path, monkeypatch):
    """The folder that holds every model folder of the pack; ComfyUI knows no other."""
    import folder_paths
    from flexiact_pack.nodes import MODEL_FOLDERS

    root = tmp_path / "models"
    for kind in MODEL_FOLDERS:
        (root / kind.name).mkdir(parents=True)
        monkeypatch.setitem(folder_paths.folder_names_and_paths, kind.name, ([str(root / kind.name)], set()))
    return root


@pytest.fixture
def running_node():
    """What ComfyUI sets up around a node, so that its progress reports have an address."""
    from comfy_execution.graph import DynamicPrompt
    from comfy_execution.progress import reset_progress_state
    from comfy_execution.utils import CurrentNodeContext

    reset_progress_state("prompt", DynamicPrompt({"node": {"class_type": "FlexiActSampler", "inputs": {}}}))
    with CurrentNodeContext("prompt", "node"):
        yield


@pytest.fixture
def small_model(small_base):
    """What Load CogVideoX I2V gives of the small random base: 17 frames of 64x64 pixels, 32 text tokens."""
    import comfy.model_management
    import torch
    from flexiact_pack.nodes.cogvideox import to_base_model
    from flexiact_pack.nodes.host import memory

    from flexiact_core.cogvideox.loading import load_base

    with memory.normal_tensors():
        yield to_base_model(load_base(small_base, small_base, torch.float32))
    comfy.model_management.unload_all_models()


@pytest.fixture
def said(monkeypatch):
    """The lines that nodes have shown."""
    from flexiact_pack.nodes.host import progress

    lines = []
    monkeypatch.setattr(progress, "say", lines.append)
    return lines


@pytest.fixture
def copied_base(model_folders, small_base):
    """The small random base among the model folders, under the name 'small'."""
    shutil.copytree(small_base, model_folders / "CogVideo" / "small")
    return "small"
