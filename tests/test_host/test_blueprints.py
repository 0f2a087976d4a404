"""The blueprints: whole graphs that ComfyUI offers as one node."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from host.environment import ROOT
from host.media import read_frames
from host.workflow import blueprint_to_prompt, check_workflow, inside, to_prompt

from .conftest import load_workflow

BLUEPRINTS = sorted((Path(ROOT) / "subgraphs").glob("*.json"))
each_blueprint = pytest.mark.parametrize("path", BLUEPRINTS, ids=lambda path: path.stem)


@each_blueprint
def test_comfyui_offers_the_blueprint(server, path):
    offered = [(one["name"], one["info"]["node_pack"]) for one in server.get("/global_subgraphs").values()]
    assert (path.stem, "custom_nodes.ComfyUI-FlexiAct") in offered


@each_blueprint
def test_the_blueprint_fits_the_nodes_and_says_inside_what_it_says_outside(object_info, path):
    blueprint = load_workflow(path)
    graph = inside(blueprint)
    assert check_workflow(graph, object_info) == []
    assert blueprint_to_prompt(blueprint, object_info, {}).keys() == {
        f"1:{node['id']}" for node in graph["nodes"] if node["type"] != "MarkdownNote"
    }
    within = [node["inputs"] for node in to_prompt(graph, object_info).values()]
    without = [node["inputs"] for node in blueprint_to_prompt(blueprint, object_info, {}).values()]
    for inner, outer in zip(within, without, strict=True):
        assert {k: v for k, v in inner.items() if not isinstance(v, list)} == {
            k: v for k, v in outer.items() if not isinstance(v, list)
        }


def test_the_camera_goes_round_the_avatar(server, object_info):
    (path,) = (path for path in BLUEPRINTS if "avatar" in path.stem)
    film = {"num_frames": 8, "width": 64, "height": 64, "clip": "wave", "move": "orbit", "amount": 90.0}
    prompt = blueprint_to_prompt(load_workflow(path), object_info, film)
    (video,) = (key for key, node in prompt.items() if node["class_type"] == "CreateVideo")
    save = {"video": [video, 0], "filename_prefix": "round", "format": "auto", "codec": "auto"}
    run = server.run(prompt | {"save": {"class_type": "SaveVideo", "inputs": save}})
    (frames,) = ([np.asarray(frame, float) for frame in read_frames(file)] for file in server.output_files(run))
    assert len(frames) == 8 and np.abs(frames[0] - frames[-1]).mean() > 1
