"""DynamiCtrl in a real ComfyUI: its workflows on a small random base, sound, and poses there and back."""

from __future__ import annotations

import json

import av
import numpy as np
import pytest
from host.dynamictrl import HEIGHT, NUM_FRAMES, WIDTH, put_base, put_inputs, with_stand_ins
from host.media import read_frames, to_pixels
from host.workflow import find_workflow, short_name, to_prompt
from PIL import Image

from flexiact_core.world.actor_cases import example_case
from flexiact_core.world.actor_measure import follow_share, measure_actor
from flexiact_core.world.actors import PAN_PX

from .conftest import WORKFLOWS, load_workflow

QUICKSTART, CAMERA = "dynamictrl_quickstart", "dynamictrl_camera"
OURS = {
    name: path
    for path in WORKFLOWS
    if (name := short_name(path)).startswith("dynamictrl_") and name not in (QUICKSTART, CAMERA)
}
# Videos of each: one for each prompt.
MADE = {
    "dynamictrl_avatars": 1, "dynamictrl_pose": 1, "dynamictrl_background": 3, "dynamictrl_clothes": 2,
    "dynamictrl_prompt": 1,
}  # fmt: skip
SILENT = {"dynamictrl_avatars"}


@pytest.fixture(scope="session")
def host(server):
    """The server, with a small random DynamiCtrl base, a picture and a driving video with sound."""
    put_base(server.base / "models")
    put_inputs(server.base / "input")
    return server


def sound_seconds(file) -> float | None:
    """The length of a video file's sound; None if it has none."""
    with av.open(str(file)) as container:
        if not container.streams.audio:
            return None
        stream = container.streams.audio[0]
        samples = sum(frame.samples for frame in container.decode(stream))
        return samples / stream.codec_context.sample_rate


def test_every_workflow_has_its_count():
    assert OURS.keys() == MADE.keys()


@pytest.mark.parametrize("name", MADE)
def test_a_workflow_runs_on_a_random_base_and_its_sound_is_as_long_as_its_frames(name, host, object_info):
    prompt = with_stand_ins(to_prompt(load_workflow(OURS[name]), object_info))
    videos = [file for file in host.output_files(host.run(prompt)) if file.suffix == ".mp4"]
    assert len(videos) == MADE[name]
    for file in videos:
        frames = read_frames(file)
        assert len(frames) == NUM_FRAMES and frames[0].size == (WIDTH, HEIGHT)
        # AAC holds whole blocks of 1024 samples.
        seconds = sound_seconds(file)
        assert seconds is None if name in SILENT else abs(seconds - NUM_FRAMES / 16) <= 2 * 1024 / 16000


def on_small_people(name, host, object_info):
    """The case that a workflow of the small people asks for, and the frames that it makes as it is shipped."""
    prompt = to_prompt(load_workflow(find_workflow(name)), object_info)
    (asked,) = (node["inputs"] for node in prompt.values() if node["class_type"] == "LoadExamplePerson")
    (file,) = (file for file in host.output_files(host.run(prompt)) if file.suffix == ".mp4")
    frames = to_pixels(read_frames(file))
    assert frames.shape == (21, 64, 64, 3)
    return example_case(asked["person"], asked["action"]), frames


def test_the_quickstart_runs_as_it_is_shipped_and_the_person_follows_the_poses(host, object_info):
    case, frames = on_small_people(QUICKSTART, host, object_info)
    assert follow_share(frames, case.actor, case.performance) >= 0.8
    still = frames[:1].expand(21, -1, -1, -1)
    assert follow_share(still, case.actor, case.performance) < 0.65


def test_poses_and_a_learned_camera_move_act_in_one_run(host, object_info):
    case, frames = on_small_people(CAMERA, host, object_info)
    seen = measure_actor(frames, case.actor, case.performance)
    assert seen.pan >= PAN_PX / 2 and seen.limbs >= 0.6


def test_workflows_name_released_files_and_settings(object_info):
    for name, path in OURS.items():
        prompt = to_prompt(load_workflow(path), object_info)
        (sampler,) = (node["inputs"] for node in prompt.values() if node["class_type"] == "DynamiCtrlSampler")
        size = (576, 1024) if name == "dynamictrl_clothes" else (768, 1360)
        assert (sampler["width"], sampler["height"], sampler["num_frames"]) == (*size, 37)
        assert (sampler["steps"], sampler["cfg"], sampler["frame_rule"]) == (25, 3.0, "aligned")
        (align,) = (node["inputs"] for node in prompt.values() if node["class_type"] == "AlignPose")
        assert (align["width"], align["height"], align["num_frames"], align["fps"]) == (*size, 37, 16.0)


def test_the_pose_workflow_has_comfyuis_own_detectors():
    kinds = [node["type"] for node in load_workflow(OURS["dynamictrl_pose"])["nodes"]]
    assert kinds.count("SDPoseKeypointExtractor") == kinds.count("RTDETR_detect") == 2


def film(**sizes) -> dict:
    place = {"person": "man", "clip": "wave", "x": 0, "z": 0, "turn": 0, "scale": 1, "fit": True, "start": 0}
    film = {"move": "still", "amount": 0, "num_frames": 3, "fps": 16, "width": 64, "height": 96, "antialias": 1}
    return {
        "who": ("PlaceAvatar", place | {"speed": 1, "after": "loop", "tint": "#ffffff"}),
        "film": ("RenderAvatars", film | sizes | {"scene": ["who", 0], "background": "#000000", "light": 0.6}),
    }


def core_draws(key: str, poses: list) -> dict:
    parts = {"draw_body": True, "draw_hands": True, "draw_face": True, "draw_feet": True, "draw_head": True}
    size = {"stick_width": 4, "face_point_size": 3, "score_threshold": 0.3}
    return {
        f"draw {key}": ("SDPoseDrawKeypoints", parts | size | {"keypoints": poses}),
        f"save {key}": ("SaveImage", {"images": [f"draw {key}", 0], "filename_prefix": f"poses_{key}"}),
    }


def to_api(nodes: dict) -> dict:
    return {key: {"class_type": kind, "inputs": inputs} for key, (kind, inputs) in nodes.items()}


def pictures(host, nodes: dict) -> dict[str, list[np.ndarray]]:
    files = sorted(host.output_files(host.run(to_api(nodes))))
    names = {file.stem.rsplit("_", 2)[0].removeprefix("poses_") for file in files}
    return {name: [np.asarray(Image.open(f)) for f in files if f.stem.startswith(f"poses_{name}_")] for name in names}


def test_poses_go_through_align_pose_and_back_into_comfyuis_own_drawing_node(host):
    align = {
        "driving": ["film", 2], "driving_fps": ["film", 3], "width": 64, "height": 96, "method": "none",
        "person": "largest", "reference_first": True, "missing": "hold", "smooth": 0.0, "fps": 16.0, "num_frames": 0,
        "keep_scores": True,
    }  # fmt: skip
    nodes = film() | {"align": ("AlignPose", align)}
    drawn = pictures(host, nodes | core_draws("before", ["film", 2]) | core_draws("after", ["align", 0]))
    assert len(drawn["before"]) == len(drawn["after"]) == 3
    for before, after in zip(drawn["before"], drawn["after"], strict=True):
        assert before.any() and (before == after).all()


def test_an_odd_number_of_frames_is_a_sentence_on_the_node_and_no_base_is_loaded(host, object_info):
    from host.server import HostError

    prompt = with_stand_ins(to_prompt(load_workflow(OURS["dynamictrl_avatars"]), object_info))
    for node in prompt.values():
        if node["class_type"] == "DynamiCtrlSampler":
            node["inputs"]["num_frames"] = 81
    with pytest.raises(HostError, match="77 or 85"):
        host.run(prompt)
    assert json.dumps(prompt)
