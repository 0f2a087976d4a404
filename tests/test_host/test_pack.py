"""The pack inside a real ComfyUI, through its HTTP API."""

from __future__ import annotations

import io

import numpy as np
import pytest
from host.server import HostError
from PIL import Image

from .conftest import WORKFLOWS, fit_to_small_model, load_workflow


@pytest.fixture
def prompt():
    """Base, RefAdapter, action and sampler, the frames saved as PNG, which loses nothing."""
    nodes = {
        "base": ("LoadCogVideoXI2V", {"components": "auto", "dtype": "fp32"}),
        "adapter": ("ApplyRefAdapter", {"model": ["base", 0], "weight": 0.7}),
        "fae": ("LoadFAEEmbedding", {"strength": 1.0}),
        "image": ("LoadImage", {}),
        "sampler": (
            "FlexiActSampler",
            {"model": ["adapter", 0], "image": ["image", 0], "fae": ["fae", 0], "prompt": "a cat jumps",
             "negative_prompt": "", "cfg": 6.0, "bias_strength": 1.0, "hold_until": 800, "off_below": 700,
             "seed": 7, "scheduler": "DPM", "weighting": "paper"},
        ),
        "save": ("SaveImage", {"images": ["sampler", 0], "filename_prefix": "frames"}),
    }  # fmt: skip
    return fit_to_small_model({key: {"class_type": kind, "inputs": inputs} for key, (kind, inputs) in nodes.items()})


def frames_of(server, run):
    return np.stack([np.asarray(Image.open(file)) for file in server.output_files(run)])


def run_afresh(server, prompt, **options):
    """A run that finds nothing in ComfyUI's cache of earlier results."""
    server.post("/free", {"unload_models": True, "free_memory": True})
    # Freed by the worker between two prompts, at the latest before the next one starts.
    run = server.run(prompt, **options)
    assert "sampler" not in run.cached
    return run


def test_the_pack_loads_without_a_complaint(server):
    assert server.import_errors() == []


@pytest.fixture(scope="module")
def node_ids():
    """The ids of all nodes of the pack."""
    from flexiact_pack.nodes import NODE_CLASS_MAPPINGS

    return set(NODE_CLASS_MAPPINGS)


def test_the_nodes_are_there_and_every_input_and_output_has_a_tooltip(object_info, node_ids):
    assert set(object_info) >= node_ids
    missing = []
    for name in sorted(node_ids):
        info = object_info[name]
        for group in ("required", "optional"):
            for key, spec in info["input"].get(group, {}).items():
                missing += [] if len(spec) > 1 and spec[1].get("tooltip") else [f"{name}.{key}"]
        tooltips = info.get("output_tooltips") or []
        assert len(tooltips) == len(info["output"]), name
        missing += [f"{name} output {i}" for i, tooltip in enumerate(tooltips) if not tooltip]
    assert missing == []


def test_every_node_is_in_a_shipped_workflow(node_ids):
    shipped = {node["type"] for path in WORKFLOWS for node in load_workflow(path)["nodes"]}
    assert sorted(node_ids - shipped) == []


def test_same_graph_and_seed_twice_gives_identical_frames(server, prompt):
    first = frames_of(server, run_afresh(server, prompt))
    again = frames_of(server, run_afresh(server, prompt))
    assert first.shape == (17, 64, 64, 3)
    np.testing.assert_array_equal(first, again)
    prompt["sampler"]["inputs"]["seed"] += 1
    assert (frames_of(server, run_afresh(server, prompt)) != first).any()


def test_each_step_is_reported_with_a_preview(server, prompt):
    prompt["sampler"]["inputs"]["steps"] = 4
    run = run_afresh(server, prompt)
    steps = [step for step in run.steps if step[0] == "sampler"]
    assert [value for _, value, maximum in steps if maximum == 4] == [1, 2, 3, 4]
    pictures = [Image.open(io.BytesIO(preview)) for preview in run.previews]
    assert len(pictures) == 4 and {picture.size for picture in pictures} == {(512, 512)}


def test_cancel_ends_the_run_within_a_step_and_the_next_run_works(server, prompt):
    prompt["sampler"]["inputs"]["steps"] = 1000

    def cancel_at_the_second_step(node, value, maximum):
        if node == "sampler" and maximum == 1000 and value == 2:
            server.interrupt()

    run = run_afresh(server, prompt, on_step=cancel_at_the_second_step, check=False)
    assert run.status == "interrupted"
    # Steps of this model take milliseconds: one more may be done before the request is read.
    assert run.steps[-1][1] <= 4
    prompt["sampler"]["inputs"]["steps"] = 2
    assert frames_of(server, server.run(prompt)).shape == (17, 64, 64, 3)


def test_a_wrong_setting_is_refused_before_anything_runs(server, prompt):
    prompt["sampler"]["inputs"]["width"] = 72
    with pytest.raises(HostError, match="(?s)FlexiActSampler.*72.*16"):
        server.run(prompt)
