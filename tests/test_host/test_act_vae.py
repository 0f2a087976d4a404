"""ACT-VAE in a real ComfyUI: its workflows, and poses that reach DynamiCtrl as they were predicted."""

from __future__ import annotations

import numpy as np
import pytest
from host.act_vae import put_act_vae
from host.dynamictrl import NAME, put_base, with_stand_ins
from host.media import read_frames, to_pixels
from host.workflow import short_name, to_prompt
from PIL import Image

from flexiact_core.act_vae.build import SHIPPED
from flexiact_core.act_vae.loading import load_act_vae
from flexiact_core.act_vae.predict import HowTo, predict_poses
from flexiact_core.act_vae.render import THICK
from flexiact_core.act_vae.source import standing_source
from flexiact_core.poses.draw import Look, draw_poses
from flexiact_core.world.actor_cases import example_case
from flexiact_core.world.actor_measure import nearest_action, read_joints

from .conftest import WORKFLOWS, load_workflow

OURS = {short_name(path): path for path in WORKFLOWS if short_name(path).startswith("act_vae_")}
# Videos of each, frames, and their size.
MADE = {
    "act_vae_quickstart": (3, 25, (256, 256)),
    "act_vae_train": (1, 25, (256, 256)),
    "act_vae_image": (1, 5, (128, 128)),
}
QUICK = {"TrainACTVAE": {"steps": 3, "measure_every": 2, "batch_size": 4}}
HOW = {
    "action": "jumping_jacks", "steps": 0, "chain": False, "variants": 2, "temperature": 1.0, "num_frames": 13,
    "fps": 16.0, "person": "largest", "width": 64, "height": 96, "seed": 4,
}  # fmt: skip
SAMPLER = {
    "prompt": "a man jumps", "negative_prompt": "", "width": 64, "height": 96, "num_frames": 13, "steps": 1, "cfg": 1.0,
    "seed": 1, "scheduler": "DPM", "pose_strength": 1.0, "pose_start": 0.0, "pose_end": 100.0, "frame_rule": "aligned",
    "image_scale": "release", "pose_colours": "dynamictrl",
}  # fmt: skip


@pytest.fixture(scope="session")
def host(server):
    """The server, with small random files of ACT-VAE and a small random DynamiCtrl base."""
    put_act_vae(server.base / "models")
    put_base(server.base / "models")
    return server


def node(kind: str, **inputs) -> dict:
    return {"class_type": kind, "inputs": inputs, "_meta": {"title": kind}}


def videos_of(host, prompt: dict) -> list[list[Image.Image]]:
    return [read_frames(file) for file in host.output_files(host.run(prompt)) if file.suffix == ".mp4"]


def test_every_workflow_has_its_count():
    assert OURS.keys() == MADE.keys() | {"act_vae_dynamictrl", "act_vae_people"}


@pytest.mark.parametrize("name", MADE)
def test_a_workflow_runs_as_it_is(name, host, object_info):
    prompt = to_prompt(load_workflow(OURS[name]), object_info)
    prompt = {key: {**one, "inputs": one["inputs"] | QUICK.get(one["class_type"], {})} for key, one in prompt.items()}
    videos = videos_of(host, prompt)
    number, frames, size = MADE[name]
    assert [(len(video), video[0].size) for video in videos] == [(frames, size)] * number
    # Random weights draw the same grey of every pose.
    for video in videos if name != "act_vae_image" else ():
        assert any((np.asarray(frame) != np.asarray(video[0])).any() for frame in video[1:])


def test_a_word_moves_a_picture_through_dynamictrl(host, object_info):
    prompt = with_stand_ins(to_prompt(load_workflow(OURS["act_vae_dynamictrl"]), object_info))
    for one in prompt.values():
        if one["class_type"] == "PredictActionPoses":
            one["inputs"]["num_frames"] = 13
    (video,) = videos_of(host, prompt)
    assert len(video) == 13 and video[0].size == (64, 96)


def test_a_word_moves_one_of_the_small_people_as_shipped(host, object_info):
    prompt = to_prompt(load_workflow(OURS["act_vae_people"]), object_info)
    (asked,) = (one["inputs"] for one in prompt.values() if one["class_type"] == "LoadExamplePerson")
    (predicted,) = (one["inputs"] for one in prompt.values() if one["class_type"] == "PredictActionPoses")
    (video,) = videos_of(host, prompt)
    frames = to_pixels(video)
    actor = example_case(asked["person"], asked["action"]).actor
    assert len(frames) == 21 and nearest_action(*read_joints(frames, actor), actor) == predicted["action"]


def test_the_workflow_asks_dynamictrl_for_as_many_frames_as_there_are_poses(object_info):
    prompt = to_prompt(load_workflow(OURS["act_vae_dynamictrl"]), object_info)
    (predicted,) = (one["inputs"] for one in prompt.values() if one["class_type"] == "PredictActionPoses")
    (sampler,) = (one["inputs"] for one in prompt.values() if one["class_type"] == "DynamiCtrlSampler")
    assert predicted["num_frames"] == sampler["num_frames"] == 37 and predicted["fps"] == 16.0
    assert prompt[sampler["poses"][0]]["inputs"] is predicted


def test_the_poses_that_reach_dynamictrls_sampler_are_the_predicted_ones(host):
    """What the sampler has drawn, and the frames that Predict Action Poses gives, against the core's own prediction."""
    prompt = {
        "model": node("LoadACTVAE", model="figures.safetensors"),
        "poses": node("PredictActionPoses", act_vae=["model", 0], **HOW),
        "base": node("LoadCogVideoXI2V", model=NAME, components="auto", dtype="auto", precision="as stored"),
        "picture": node("EmptyImage", width=64, height=96, batch_size=1, color=8421504),
        "video": node("DynamiCtrlSampler", model=["base", 0], image=["picture", 0], poses=["poses", 0], **SAMPLER),
        "drawn": node("SaveImage", images=["video", 2], filename_prefix="act_vae_test/drawn"),
        "frames": node("SaveImage", images=["poses", 1], filename_prefix="act_vae_test/frames"),
    }
    files = sorted(file for file in host.output_files(host.run(prompt)) if file.suffix == ".png")
    core = predict_poses(
        load_act_vae(SHIPPED), standing_source(64, 96), HOW["action"],
        HowTo(num_frames=13, fps=16.0, seed=4, variants=2),
    )  # fmt: skip
    for prefix, look in (("drawn", Look()), ("frames", THICK)):
        saved = [np.asarray(Image.open(file)) for file in files if file.name.startswith(prefix)]
        expected = np.concatenate([(draw_poses(clip, look=look) * 255).numpy() for clip in core.variants])
        assert len(saved) == len(expected) == 26
        # A picture file cuts to whole numbers.
        assert np.abs(np.stack(saved).astype(float) - expected).max() <= 1


def test_poses_come_back_from_comfyuis_own_drawing(host):
    """ComfyUI's own node reads what is predicted, and draws a person in every frame."""
    prompt = {
        "model": node("LoadACTVAE", model="figures.safetensors"),
        "poses": node("PredictActionPoses", act_vae=["model", 0], **HOW | {"variants": 1, "width": 128, "height": 128}),
        "drawn": node(
            "SDPoseDrawKeypoints", keypoints=["poses", 0], draw_body=True, draw_hands=True, draw_face=True,
            draw_feet=False, draw_head=True, stick_width=4, face_point_size=3, score_threshold=0.3,
        ),
        "save": node("SaveImage", images=["drawn", 0], filename_prefix="act_vae_test/own"),
    }  # fmt: skip
    frames = [np.asarray(Image.open(file)) for file in host.output_files(host.run(prompt)) if file.suffix == ".png"]
    assert len(frames) == 13 and all((frame > 40).any() for frame in frames)
