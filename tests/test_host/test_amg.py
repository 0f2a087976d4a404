"""AMG in a real ComfyUI: its workflows on random weights, and a file in the release's layout from end to end."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from host.amg import change_inputs, with_amg_inputs
from host.media import read_frames, to_pixels
from host.workflow import find_workflow, short_name, to_prompt
from safetensors.torch import load_file

from flexiact_core.amg.rehearsal import LABEL, make_small_amg
from flexiact_core.world import shipped
from flexiact_core.world.take_cases import example_take
from flexiact_core.world.take_measure import measure_take

from .conftest import WORKFLOWS, load_workflow

GOLDEN = Path(__file__).parents[1] / "golden" / "amg"
QUICKSTART = "amg_quickstart"
AMG_WORKFLOWS = [path for path in WORKFLOWS if (name := short_name(path)).startswith("amg_") and name != QUICKSTART]
# What the tests have no time for.
SMALL = {
    "RenderAvatars": {"width": 64, "height": 64, "num_frames": 4},
    "AMGSampler": {"width": 64, "height": 64, "steps": 2, "num_frames": 4},
    "TrainAMG": {"steps": 2, "size": 32, "num_frames": 2},
}
MADE = {
    "amg_background": 4, "amg_camera": 4, "amg_motion": 4, "amg_two_people": 1, "amg_viewer": 2, "amg_release": 2,
    "amg_train": 2,
}  # fmt: skip


def graph(prompt: dict, **sampler) -> dict:
    """A woman who waves, and what AMG makes of her."""
    place = {"person": "woman", "clip": "wave", "x": 0, "z": 0, "turn": 0, "scale": 1, "fit": True, "start": 0}
    film = {"move": "still", "amount": 0, "num_frames": 4, "fps": 8, "width": 64, "height": 64, "antialias": 1}
    video = {"prompt": "a woman in snow", "negative_prompt": "", "width": 64, "height": 64, "num_frames": 16}
    video |= {"steps": 3, "cfg": 3, "seed": 5, "fps": 8, "fit": "cover", "long_prompt": "cut"} | sampler
    nodes = {
        "model": ("LoadAMG", prompt),
        "scene": ("PlaceAvatar", place | {"speed": 1, "after": "loop", "tint": "#ffffff"}),
        "film": ("RenderAvatars", film | {"scene": ["scene", 0], "background": "#000000", "light": 0.6}),
        "sampler": ("AMGSampler", video | {"model": ["model", 0], "avatar": ["film", 0]}),
        "save": ("SaveVideo", {"video": ["sampler", 1], "filename_prefix": "amg", "format": "auto", "codec": "auto"}),
    }
    return {key: {"class_type": kind, "inputs": inputs} for key, (kind, inputs) in nodes.items()}


def load(model: str, **settings) -> dict:
    fixed = {"model": model, "adapter": "none", "components": "auto", "zero_text": "computed", "dtype": "fp32"}
    return fixed | settings


@pytest.fixture(scope="session")
def released(server):
    """The name of a file in the release's layout, with text encoder, VAE and zero text beside it in models/amg."""
    folder = server.base / "models" / "amg"
    parts = make_small_amg(text_width=1024)
    for name in ("text_encoder", "tokenizer", "vae"):
        getattr(parts, name).save_pretrained(folder / "sd21" / name)
    files = sorted(GOLDEN.glob("unet_weights_*.safetensors"))
    state = {key.removeprefix("sd."): value for file in files for key, value in load_file(file).items()}
    content = {"state_dict": state, "optimizer": {"state": {}}, "scaler": {"scale": 1.0}, "step": 640000}
    torch.save(content, folder / "non_ema_0640000.pth")
    torch.save(load_file(GOLDEN / "unet_io.safetensors")["in.zero_y"][:1].clone(), folder / "zero_y.pt")
    base = {key: value for key, value in state.items() if "_lora." not in key}
    base["input_blocks.0.0.weight"] = base["input_blocks.0.0.weight"][:, :4].clone()
    torch.save({"state_dict": base}, folder / "model_scope_v1-4_0600000.pth")
    return "non_ema_0640000.pth"


@pytest.mark.parametrize("path", AMG_WORKFLOWS, ids=short_name)
def test_a_workflow_runs_on_random_weights(path, server, object_info):
    prompt = with_amg_inputs(to_prompt(load_workflow(path), object_info), server.base / "input")
    models = [node["inputs"]["model"] for node in prompt.values() if node["class_type"] == "LoadAMG"]
    assert models == [LABEL]
    run = server.run(change_inputs(prompt, SMALL))
    videos = [read_frames(file) for file in server.output_files(run) if file.suffix == ".mp4"]
    assert len(videos) == MADE[short_name(path)]
    assert any("The weights are random: the result is noise" in text for text in run.texts)


def test_the_quickstart_runs_as_it_is_shipped_and_the_person_does_what_the_puppet_does(server, object_info):
    prompt = to_prompt(load_workflow(find_workflow(QUICKSTART)), object_info)
    (asked,) = (node["inputs"] for node in prompt.values() if node["class_type"] == "LoadExampleAvatar")
    (file,) = (file for file in server.output_files(server.run(prompt)) if file.suffix == ".mp4")
    frames = to_pixels(read_frames(file))
    case = example_take(asked["person"], asked["action"], asked["camera"])
    seen = measure_take(frames, case.take)
    assert seen.scene == case.take.scene and seen.overlap >= 0.6
    assert measure_take(frames, case.by_other_camera()).overlap <= seen.overlap - 0.1


@pytest.mark.parametrize("path", AMG_WORKFLOWS, ids=short_name)
def test_a_workflow_has_released_settings_and_says_that_its_weights_are_random(path, object_info):
    workflow = load_workflow(path)
    prompt = to_prompt(workflow, object_info)
    samplers = [node["inputs"] for node in prompt.values() if node["class_type"] == "AMGSampler"]
    assert samplers
    for sampler in samplers:
        assert (sampler["num_frames"], sampler["steps"], sampler["cfg"], sampler["long_prompt"]) == (16, 20, 3.0, "cut")
    (note,) = (node["widgets_values"][0] for node in workflow["nodes"] if node["type"] == "MarkdownNote")
    assert "research only" in note or short_name(path) == "amg_release"


def test_a_file_in_the_releases_layout_runs_from_end_to_end(server, released):
    run = server.run(graph(load(released, zero_text="zero_y.pt")))
    (file,) = server.output_files(run)
    frames = read_frames(file)
    assert len(frames) == 4 and frames[0].size == (64, 64)
    assert [step for node, *step in run.steps if node == "sampler"] == [[1, 3], [2, 3], [3, 3]]
    assert len(run.previews) >= 3
    assert any("4 frames of 64x64; AMG learned 16 of 256x256." in text for text in run.texts)
    again = server.run(graph(load(released, zero_text="zero_y.pt"), seed=6))
    assert {"model", "scene", "film"} <= set(again.cached)


def test_a_base_is_refused_for_sampling_by_name(server, released):
    run = server.run(graph(load("model_scope_v1-4_0600000.pth")), check=False)
    assert run.status == "error"
    assert "model_scope_v1-4_0600000: a ModelScope base alone has no avatar input" in run.error


def test_cancel_ends_a_run_within_a_step_and_the_next_one_is_whole(server, released):
    def cancel(node, value, _):
        if node == "sampler" and value == 2:
            server.interrupt()

    run = server.run(graph(load(released), steps=40, seed=9), on_step=cancel, check=False)
    assert run.status == "interrupted"
    assert max(value for node, value, _ in run.steps if node == "sampler") <= 4
    (first,), (second,) = (server.output_files(server.run(graph(load(released), seed=seed))) for seed in (9, 10))
    pixels = [np.stack([np.asarray(frame) for frame in read_frames(file)]) for file in (first, second)]
    assert (pixels[0] != pixels[1]).any()


def test_what_is_listed_is_what_lies_in_the_folder(server, released):
    inputs = json.loads(json.dumps(server.object_info()["LoadAMG"]["input"]["required"]))
    options = {name: spec[1]["options"] for name, spec in inputs.items()}
    files = ["model_scope_v1-4_0600000.pth", "non_ema_0640000.pth"]
    assert options["model"] == [*files, shipped.ACTORS_LABEL, LABEL]
    assert options["components"] == ["auto", "sd21"] and options["zero_text"] == ["computed", "zero_y.pt"]
