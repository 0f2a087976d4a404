"""Training inside a real ComfyUI: from a video file to an action and a video, stopped, resumed, and explained."""

from __future__ import annotations

import csv

import pytest
from host.media import read_frames
from host.server import HostError
from host.workflow import find_workflow, to_prompt
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from videos import make_video

from .conftest import SMALL, load_workflow, put_released_action

TRAINING = {
    "model": ["base", 0], "reference": ["video", 0], "caption": "a figure stretches", "name": "stretch", "steps": 4,
    "learning_rate": 0.01, "crops": 2, "batch_size": 1, "checkpoint_every": 2, "sample_every": 0, "sample_cfg": 1.0,
    "resume": True, "released_format": False, "seed": 3, "gradient_checkpointing": "auto",
}  # fmt: skip


LONG = 150  # steps: long enough to be stopped on the way


def graph(training=TRAINING, **nodes):
    """A prompt that trains on clip.mp4 and saves the loss curve."""
    prompt = {
        "base": ("LoadCogVideoXI2V", {"components": "auto", "dtype": "fp32"} | SMALL["LoadCogVideoXI2V"]),
        "video": ("LoadVideo", {"file": "clip.mp4"}),
        "train": ("TrainFAE", training),
        "curve": ("SaveImage", {"images": ["train", 1], "filename_prefix": "curve"}),
    } | nodes
    return {key: {"class_type": kind, "inputs": inputs} for key, (kind, inputs) in prompt.items()}


def trained(server, name):
    return server.base / "models" / "flexiact" / "fae" / f"{name}.safetensors"


def test_from_a_video_file_to_an_action_to_a_video(server):
    sampler = {
        "model": ["base", 0], "image": ["photo", 0], "fae": ["train", 0], "prompt": "a cat stretches",
        "negative_prompt": "", "cfg": 1.0, "bias_strength": 1.0, "hold_until": 800, "off_below": 700, "seed": 1,
        "scheduler": "DPM", "weighting": "paper",
    } | SMALL["FlexiActSampler"]  # fmt: skip
    run = server.run(
        graph(
            TRAINING | {"name": "whole", "reference": ["clips", 0], "released_format": True},
            clips=("PrepareActionClips", {"model": ["base", 0], "reference": ["video", 0], "caption": "a stretch",
                                          "fps": 8.0, "start": 0.5, "duration": 3.0, "crops": 3, "flip": True,
                                          "smallest_scale": 0.8, "largest_scale": 1.2, "seed": 0}),
            photo=("LoadImage", {"image": "photo.png"}),
            sample=("FlexiActSampler", sampler),
            save=("SaveVideo", {"video": ["sample", 1], "filename_prefix": "v", "format": "auto", "codec": "auto"}),
            grid=("SaveImage", {"images": ["clips", 1], "filename_prefix": "grid"}),
        )
    )  # fmt: skip
    files = {file.suffix: file for file in server.output_files(run)}
    assert len(read_frames(files[".mp4"])) == 17
    with safe_open(trained(server, "whole"), "pt") as file:
        metadata = file.metadata()
    assert metadata["caption"] == "a stretch"
    assert metadata["steps"] == "4"
    assert metadata["base"].startswith("cogvideox-i2v-")
    assert metadata["pack_version"]
    assert trained(server, "whole").with_suffix(".pt").is_file()
    assert run.previews, "the loss curve is shown while it runs"


def test_the_shipped_training_workflow_runs_as_it_is_on_the_small_world(server):
    workflow = load_workflow(find_workflow("flexiact_train"))
    run = server.run(to_prompt(workflow, server.object_info()))
    (video,) = (file for file in server.output_files(run) if file.suffix == ".mp4")
    assert len(read_frames(video)) == 17
    # Another test may have trained under the same name: then this one's file has a number.
    saved = trained(server, "my_drop").parent.glob("my_drop*.safetensors")
    assert "150" in {safe_open(file, "pt").metadata()["steps"] for file in saved}


def test_cancelled_and_queued_again_it_learns_what_it_would_have_learned_at_once(server):
    server.run(graph(TRAINING | {"name": "at_once", "steps": LONG}))

    def cancel(node, value, maximum):
        if node == "train" and maximum == LONG and value >= 3:
            server.interrupt()

    settings = TRAINING | {"name": "in_parts", "steps": LONG}
    first = server.run(graph(settings), on_step=cancel)
    stopped_at = int(safe_open(trained(server, "in_parts"), "pt").metadata()["steps"])
    assert first.status == "success", "what was learned flows on"
    assert 3 <= stopped_at < LONG
    second = server.run(graph(settings))
    assert "train" not in second.cached, "the same graph, queued again, goes on"
    at_once, in_parts = load_file(trained(server, "at_once")), load_file(trained(server, "in_parts"))
    assert all((at_once[key] == in_parts[key]).all() for key in at_once)


def test_two_trainings_of_one_name_both_stay(server):
    server.run(graph(TRAINING | {"name": "twice", "seed": 1}))
    first = trained(server, "twice").read_bytes()
    server.run(graph(TRAINING | {"name": "twice", "seed": 2}))
    assert trained(server, "twice").read_bytes() == first
    assert trained(server, "twice_2").is_file()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": 0.01, "reference": ["short", 0]}, "at least 9 are needed"),
        ({"learning_rate": 1.0, "steps": 0}, "steps|smaller than min"),
    ],
    ids=["one frame", "no steps"],
)
def test_what_cannot_be_trained_on_is_said(server, change, message):
    make_video(server.base / "input" / "one_frame.mp4", num_frames=1, fps=30)
    with pytest.raises(HostError, match=message):
        server.run(graph(TRAINING | {"name": "never"} | change, short=("LoadVideo", {"file": "one_frame.mp4"})))
    assert not trained(server, "never").exists()
    server.run(graph(TRAINING | {"name": "after"}))


def test_a_refadapter_is_trained_from_a_list_and_applied(server):
    folder = server.base / "input"
    for number in range(2):
        make_video(folder / f"moving_{number}.mp4", num_frames=70, fps=30)
    with (folder / "list.csv").open("w", newline="") as lines:
        csv.writer(lines).writerows([[f"moving_{number}.mp4", 0, 70, 30, 0, "a thing moves"] for number in range(2)])
    settings = {
        "model": ["base", 0], "clip_list": "list.csv", "name": "adapter", "steps": 2, "learning_rate": 0.001, "rank": 4,
        "batch_size": 1, "checkpoint_every": 1, "resume": True, "seed": 0, "gradient_checkpointing": "on",
    }  # fmt: skip
    run = server.run(graph(train=("TrainRefAdapter", settings)))
    assert run.status == "success"
    assert (server.base / "models" / "flexiact" / "refadapter" / "adapter.safetensors").is_file()
    missing = settings | {"clip_list": "gone.csv"}
    with pytest.raises(HostError, match="gone.csv: no such file in input"):
        server.run(graph(train=("TrainRefAdapter", missing)))


def test_an_action_of_the_authors_folder_is_trained_on(server):
    put_released_action(server.base / "models")
    run = server.run(
        graph(
            TRAINING | {"name": "chest", "reference": ["released", 0]},
            released=("LoadReleasedAction", {"model": ["base", 0], "action": "human/chest", "seed": 0}),
            targets=("SaveImage", {"images": ["released", 2], "filename_prefix": "target"}),
        )
    )
    saved = [file for file in server.output_files(run) if file.name.startswith("target")]
    assert sorted(Image.open(file).width for file in saved) == [80, 81]
    assert trained(server, "chest").is_file()
