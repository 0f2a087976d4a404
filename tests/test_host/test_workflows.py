"""The shipped workflows in a real ComfyUI: the small world's as they are, the others with small random models."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from conftest import RELEASED_CONFIG
from host.core_models import without_core_models
from host.media import read_frames
from host.models import NAME
from host.thumbnails import BACKGROUND, GAP_PX, SIDE_PX, STAND_INS, WITH_MORE, make_thumbnail
from host.workflow import check_workflow, find_workflow, short_name, to_prompt
from PIL import Image

from flexiact_core.cogvideox.family import COGVIDEOX_1_0
from flexiact_core.cogvideox.own_values import own_values
from flexiact_core.world.actions import ACTIONS
from flexiact_core.world.shipped import example

from .conftest import WORKFLOWS, fit_to_small_model, load_workflow, put_released_action

# The demo's test runs the quickstart as it is, others have tests of their own.
RUN_ELSEWHERE = {"flexiact_quickstart", "flexiact_train", "flexiact_native_lora"}
FOR_5B = [path for path in WORKFLOWS if short_name(path) in STAND_INS]
# These have tests of their own.
OWN_TESTS = ("act_vae_", "amg_", "dynamictrl_")
AS_SHIPPED = [
    path
    for path in WORKFLOWS
    if short_name(path) not in STAND_INS.keys() | WITH_MORE.keys() | RUN_ELSEWHERE
    and not short_name(path).startswith(OWN_TESTS)
]
NUM_FRAMES, FRAME_PX = 17, 64
# Those that make no video of the small world: frames, and the side of one.
OTHER_SIZES = {"avatars_render": (16, 256), "flexiact_bodies": (21, 64)}

# Where the node looks.
MODEL_DIRECTORIES = {
    "ApplyRefAdapter": "flexiact", "LoadFAEEmbedding": "flexiact", "CheckpointLoaderSimple": "checkpoints",
    "UNETLoader": "diffusion_models", "CLIPLoader": "text_encoders", "UpscaleModelLoader": "upscale_models",
    "FrameInterpolationModelLoader": "frame_interpolation",
}  # fmt: skip

each_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=short_name)
each_for_5b = pytest.mark.parametrize("path", FOR_5B, ids=short_name)


def nodes_of(prompt: dict, kind: str) -> list[dict]:
    """The inputs of every node of a kind, in the order of the graph."""
    return [node["inputs"] for node in prompt.values() if node["class_type"] == kind]


@pytest.fixture(scope="session")
def made(server, object_info):
    """made(name) runs a workflow as shipped, once, and gives its prompt and the frames of its videos (T, H, W, 3)."""

    @cache
    def run_as_shipped(name: str) -> tuple[dict, list[np.ndarray]]:
        prompt = to_prompt(load_workflow(find_workflow(name)), object_info)
        files = server.output_files(server.run(prompt))
        videos = [np.stack([np.asarray(frame) for frame in read_frames(f)]) for f in files if f.suffix == ".mp4"]
        return prompt, videos

    return run_as_shipped


@each_workflow
def test_a_workflow_fits_the_nodes(path, object_info):
    assert check_workflow(load_workflow(path), object_info) == []


@each_workflow
def test_a_workflow_has_a_note_and_names_its_groups(path):
    workflow = load_workflow(path)
    (note,) = (node for node in workflow["nodes"] if node["type"] == "MarkdownNote")
    assert note["widgets_values"][0].startswith("## ")
    assert {group["title"] for group in workflow["groups"]} >= {"Start here"}


@each_workflow
def test_a_workflow_runs_from_left_to_right(path):
    workflow = load_workflow(path)
    left = {node["id"]: node["pos"][0] for node in workflow["nodes"]}
    backwards = [(source, target) for _, source, _, target, *_ in workflow["links"] if left[source] > left[target]]
    assert backwards == []


@pytest.mark.parametrize("path", AS_SHIPPED, ids=short_name)
def test_a_workflow_of_the_small_world_runs_as_it_is(path, made):
    _, videos = made(short_name(path))
    assert videos
    num_frames, side = OTHER_SIZES.get(short_name(path), (NUM_FRAMES, FRAME_PX))
    for video in videos:
        assert video.shape[0] == num_frames and video.shape[2] == side


@each_for_5b
def test_a_workflow_for_5b_runs_with_other_files_and_sizes(path, server, object_info):
    run = server.run(fit_to_small_model(to_prompt(load_workflow(path), object_info)))
    (video,) = (read_frames(file) for file in server.output_files(run) if file.suffix == ".mp4")
    assert len(video) == NUM_FRAMES and video[0].size == (FRAME_PX, FRAME_PX)


# Two pictures of the authors' folder, two videos; enlarged by nothing and then halved, as the large one is.
@pytest.mark.parametrize(
    ("name", "count", "side"), [("flexiact_caption", 1, 64), ("flexiact_released", 2, 64), ("flexiact_smooth", 1, 32)]
)
def test_a_workflow_with_more_around_it_runs_without_comfyuis_own_models(name, count, side, server, object_info):
    put_released_action(server.base / "models")
    prompt = without_core_models(to_prompt(load_workflow(find_workflow(name)), object_info))
    run = server.run(fit_to_small_model(prompt))
    videos = [read_frames(file) for file in server.output_files(run) if file.suffix == ".mp4"]
    assert [(len(frames), frames[0].size) for frames in videos] == [(NUM_FRAMES, (side, side))] * count


def test_a_smoother_video_is_as_long_as_the_one_that_was_made(object_info):
    prompt = to_prompt(load_workflow(find_workflow("flexiact_smooth")), object_info)
    (between,), (video,) = nodes_of(prompt, "FrameInterpolate"), nodes_of(prompt, "CreateVideo")
    assert video["fps"] == COGVIDEOX_1_0.fps * between["multiplier"]


@each_workflow
def test_a_missing_file_is_listed_with_its_address_and_folder(path):
    for node in load_workflow(path)["nodes"]:
        for model in node["properties"].get("models", ()):
            assert model["name"] in node["widgets_values"]
            assert model["url"].startswith("https://huggingface.co/") and model["url"].endswith("/" + model["name"])
            assert model["directory"] == MODEL_DIRECTORIES[node["type"]]


def test_the_quickstart_runs_on_a_base_laid_out_as_the_released_one(server, object_info):
    base = server.base / "models" / "CogVideo" / NAME
    assert (base / "tokenizer" / "spiece.model").exists() and not (base / "tokenizer" / "tokenizer.json").exists()
    assert len(list((base / "transformer").glob("*-of-*.safetensors"))) == 3
    run = server.run(fit_to_small_model(to_prompt(load_workflow(find_workflow("flexiact_quickstart")), object_info)))
    videos = [read_frames(file) for file in server.output_files(run) if file.suffix == ".mp4"]
    assert [len(frames) for frames in videos] == [NUM_FRAMES] * len(videos) and videos


@each_for_5b
def test_a_workflow_for_5b_has_the_released_files_and_settings(path, object_info):
    prompt = to_prompt(load_workflow(path), object_info)
    (base,), (adapter,) = nodes_of(prompt, "LoadCogVideoXI2V"), nodes_of(prompt, "ApplyRefAdapter")
    (action,), (sampler,) = nodes_of(prompt, "LoadFAEEmbedding"), nodes_of(prompt, "FlexiActSampler")
    assert base["model"] == "CogVideoX-5b-I2V"
    assert (adapter["adapter_file"], adapter["weight"]) == ("ckpts/refnetlora_step40000_model.pt", 0.7)
    assert Path(action["fae_file"]).parent.as_posix() == "ckpts/FAE/motion_ckpts"
    asked = {key: sampler[key] for key in ("width", "height", "num_frames", "steps", "cfg")}
    # 0 is the base's own: the workflow fits any base, and makes of the released one what its authors do.
    assert list(own_values(RELEASED_CONFIG).complete(**asked).values()) == [720, 480, 49, 50, 6.0]
    assert (sampler["scheduler"], sampler["weighting"]) == ("DPM", "auto")


def test_acceleration_as_shipped_leaves_no_step_out(object_info):
    prompt = to_prompt(load_workflow(find_workflow("flexiact_transfer")), object_info)
    (settings,) = nodes_of(prompt, "FlexiActAcceleration")
    assert settings["step_cache"] == "off"


def test_a_batch_gives_a_video_of_each_of_its_pictures(made):
    prompt, videos = made("flexiact_batch")
    pictures = [example(node["action"], node["target"]).image * 255 for node in nodes_of(prompt, "LoadExampleAction")]
    assert len(videos) == len(pictures)
    errors = [[np.abs(video[0] - picture).mean() for picture in pictures] for video in videos]
    assert np.argmin(errors, axis=1).tolist() == list(range(len(pictures)))


def test_a_comparison_differs_in_the_action_alone(made):
    prompt, (_, video) = made("flexiact_compare")
    without, with_action = nodes_of(prompt, "FlexiActSampler")
    action = with_action.pop("fae")
    assert "fae" not in without and without == with_action
    assert prompt[action[0]]["class_type"] == "LoadFAEEmbedding"
    above, below = video[:, :FRAME_PX], video[:, -FRAME_PX:]
    assert above.shape == below.shape and (above != below).any()


def test_a_blend_measures_itself_against_what_both_actions_make_together(object_info):
    prompt = to_prompt(load_workflow(find_workflow("flexiact_blend")), object_info)
    (wanted,) = nodes_of(prompt, "LoadExampleAction")
    blended = {Path(node["fae_file"]).stem for node in nodes_of(prompt, "LoadFAEEmbedding")}
    assert blended == set(ACTIONS[wanted["action"]].parts)


@each_workflow
def test_a_workflow_has_a_thumbnail(path):
    assert Image.open(path.with_suffix(".jpg")).size == (SIDE_PX, SIDE_PX)


def test_a_thumbnail_shows_the_reference_and_what_the_workflow_made_of_the_target(server, tmp_path):
    inputs = example(STAND_INS["flexiact_human"])
    picture = Image.open(make_thumbnail(server, "flexiact_human", tmp_path))
    side = (SIDE_PX - GAP_PX) // 4 - GAP_PX
    strips = np.asarray(picture, np.float32)[:, GAP_PX : GAP_PX + side]
    rows = np.flatnonzero(np.abs(strips - BACKGROUND).mean(axis=(1, 2)) > 30)
    runs = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
    reference, result = (strips[run] for run in runs if len(run) == side)
    shown = [np.asarray(Image.fromarray((frame * 255).astype(np.uint8)).resize((side, side)))
             for frame in (inputs.reference[0], inputs.image)]  # fmt: skip
    assert np.abs(reference - shown[0]).mean() < 5
    assert np.abs(result - shown[1]).mean() < np.abs(result - shown[0]).mean()
