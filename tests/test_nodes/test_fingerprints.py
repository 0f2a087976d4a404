"""A node that reads a file runs again when the file has changed: what fingerprint_inputs says of it."""

from __future__ import annotations

import os
import shutil

import pytest
import torch
from small_models import make_fae, make_refadapter
from videos import make_video, write_rows

nodes = pytest.importorskip("flexiact_pack.nodes", reason="needs ComfyUI: run `make test`")

from flexiact_core.weight_files import write_tensors  # noqa: E402


@pytest.fixture
def files(model_folders, copied_base):
    """The files that nodes are asked to read, by what they are."""
    root = model_folders / "flexiact"
    action = root / "data" / "captions" / "human" / "turn"
    action.mkdir(parents=True)
    row = ["v.mp4", 0, 9, 8, 0, "x"]
    return {
        "fae": make_fae(root / "a.safetensors"),
        "adapter": make_refadapter(root / "b.safetensors"),
        "base": model_folders / "CogVideo" / copied_base / "transformer" / "config.json",
        "list": write_rows(action / "crop.csv", row),
        "video": make_video(root / "data" / "v.mp4", num_frames=10, fps=8),
    }


CASES = {
    "LoadFAEEmbedding": ({"fae_file": "a.safetensors", "strength": 1.0}, ["fae"]),
    "ApplyRefAdapter": ({"adapter_file": "b.safetensors", "weight": 0.7}, ["adapter"]),
    "LoadCogVideoXI2V": ({"model": "small", "components": "auto", "dtype": "auto", "weights": "as stored"}, ["base"]),
    "LoadReleasedAction": ({"action": "human/turn", "seed": 0}, ["list", "video"]),
    "TrainRefAdapter": ({"clip_list": None, "name": "x", "steps": 3, "resume": True}, ["list", "video"]),
}


@pytest.mark.parametrize("node", CASES)
def test_a_file_that_changed_is_read_again_and_one_that_did_not_is_not(files, node):
    widgets, read = CASES[node]
    if "clip_list" in widgets:
        # Beside its video: a list in a model folder reaches up to that.
        listed = shutil.copy(files["list"], files["video"].parent / "list.csv")
        widgets, files["list"] = widgets | {"clip_list": str(listed)}, listed
    state = nodes.NODE_CLASS_MAPPINGS[node].fingerprint_inputs
    for name in read:
        before = state(**widgets)
        assert before == state(**widgets)
        os.utime(files[name], ns=(1, 1))
        assert state(**widgets) != before, name


@pytest.mark.parametrize(
    "node", [name for name, kind in nodes.NODE_CLASS_MAPPINGS.items() if "fingerprint_inputs" in vars(kind)]
)
@pytest.mark.parametrize("value", [None, "", "gone", "../gone", "/etc/passwd"])
@pytest.mark.usefixtures("model_folders")
def test_names_that_are_not_there_or_not_known_yet_never_raise(node, value):
    kind = nodes.NODE_CLASS_MAPPINGS[node]
    texts = {item.id for item in kind.define_schema().inputs if getattr(item, "io_type", "") in ("STRING", "COMBO")}
    numbers = {"steps": 3, "seed": 0, "resume": True}
    kind.fingerprint_inputs(**{name: value for name in texts} | numbers)
    kind.fingerprint_inputs()


@pytest.mark.usefixtures("model_folders")
def test_every_node_that_lists_files_says_when_they_change():
    for name, kind in nodes.NODE_CLASS_MAPPINGS.items():
        lists = [item.id for item in kind.define_schema().inputs if item.id in ("fae_file", "adapter_file", "model")]
        lists = [item for item in kind.define_schema().inputs if item.id in lists and item.io_type == "COMBO"]
        assert not lists or "fingerprint_inputs" in vars(kind), name


def test_another_file_with_an_earlier_time_is_a_change_too(files):
    """A file that is put in the place of another often keeps the time it was made."""
    state = nodes.NODE_CLASS_MAPPINGS["LoadFAEEmbedding"].fingerprint_inputs
    before = state(fae_file="a.safetensors")
    older = write_tensors({"other": torch.zeros(1)}, files["fae"].parent / "o.safetensors", {})
    os.utime(older, ns=(10**18, 10**18))
    os.replace(older, files["fae"])
    assert state(fae_file="a.safetensors") != before
