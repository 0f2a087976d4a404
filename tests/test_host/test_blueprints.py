"""The blueprints: whole graphs that ComfyUI offers as one node."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from host.dynamictrl import HEIGHT, NAME, NUM_FRAMES, WIDTH, put_base, put_inputs, with_stand_ins
from host.environment import ROOT
from host.media import read_frames
from host.workflow import blueprint_to_prompt, check_workflow, inside, to_prompt

from .conftest import load_workflow

BLUEPRINTS = sorted((Path(ROOT) / "subgraphs").glob("*.json"))
each_blueprint = pytest.mark.parametrize("path", BLUEPRINTS, ids=lambda path: path.stem)


def named(start: str) -> Path:
    """The blueprint whose name starts so."""
    (path,) = (path for path in BLUEPRINTS if path.stem.startswith(start))
    return path


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


def frames_of(server, prompt: dict, kind: str, output: int) -> list[np.ndarray]:
    """The frames of the video that the only node of a kind gives."""
    (key,) = (key for key, node in prompt.items() if node["class_type"] == kind)
    save = {"video": [key, output], "filename_prefix": "blueprint", "format": "auto", "codec": "auto"}
    run = server.run(prompt | {"save": {"class_type": "SaveVideo", "inputs": save}})
    (frames,) = ([np.asarray(frame, float) for frame in read_frames(file)] for file in server.output_files(run))
    return frames


def test_the_camera_goes_round_the_avatar(server, object_info):
    film = {"num_frames": 8, "width": 64, "height": 64, "clip": "wave", "move": "orbit", "amount": 90.0}
    prompt = blueprint_to_prompt(load_workflow(named("Move the camera")), object_info, film)
    frames = frames_of(server, prompt, "CreateVideo", 0)
    assert len(frames) == 8 and np.abs(frames[0] - frames[-1]).mean() > 1


@pytest.mark.parametrize(
    ("start", "driving"),
    [("Follow this", {"driving video": ["driving", 0]}), ("Say what", {})],
    ids=("poses", "word"),
)
def test_a_picture_follows_poses_and_does_what_a_word_says(server, object_info, start, driving):
    put_base(server.base / "models")
    put_inputs(server.base / "input")
    given = driving | {"image": ["picture", 0], "model": NAME}
    prompt = blueprint_to_prompt(load_workflow(named(start)), object_info, given)
    inputs = {
        "picture": {"class_type": "LoadImage", "inputs": {"image": "person.png"}},
        "driving": {"class_type": "LoadVideo", "inputs": {"file": "driving.mp4"}},
    }
    prompt = with_stand_ins(prompt | inputs)
    for node in prompt.values():
        if node["class_type"] == "PredictActionPoses":
            node["inputs"]["num_frames"] = NUM_FRAMES
    frames = frames_of(server, prompt, "DynamiCtrlSampler", 1)
    assert len(frames) == NUM_FRAMES and frames[0].shape == (HEIGHT, WIDTH, 3)
