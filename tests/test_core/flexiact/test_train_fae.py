"""An action learned from the command line, in one process and in two."""

from __future__ import annotations

import pytest
import torch
from launches import assert_same_first_moments, checkpoint_of, launch
from safetensors.torch import load_file
from videos import HEADER, make_video, write_rows

from flexiact_core.cogvideox.own_values import own_values
from flexiact_core.errors import FileError
from flexiact_core.flexiact.fae import load_fae
from flexiact_core.flexiact.train_fae import parse_arguments, read_clips, train
from flexiact_core.video_files import read_video

MODULE = "flexiact_core.flexiact.train_fae"
pytestmark = pytest.mark.usefixtures("alone_on_cpu")


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return make_video(tmp_path_factory.mktemp("clips") / "jump.mp4", num_frames=70, fps=30)


def settings(small_base, data, output, *options):
    places = ["--base", small_base, "--data", data, "--output", output]
    return list(map(str, [*places, "--crops", "3", "--dtype", "float32", *options]))


def learn(*given):
    return load_fae(train(parse_arguments(settings(*given))))


def test_two_processes_learn_what_one_learns_from_twice_the_batch(small_base, video, tmp_path, capsys):
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    learn(small_base, video, one, "--steps", "2", "--batch-size", "2")
    said = capsys.readouterr().out
    assert "encoded 3 of 3 clips" in said and "step 2/2 loss" in said
    launch(MODULE, settings(small_base, video, two, "--steps", "2", "--batch-size", "1"), tmp_path, processes=2)
    assert_same_first_moments(checkpoint_of(one), checkpoint_of(two))


def test_the_command_goes_on_from_its_checkpoint(small_base, video, tmp_path, capsys):
    whole = learn(small_base, video, tmp_path / "whole.safetensors", "--steps", "3")
    learn(small_base, video, tmp_path / "parts.safetensors", "--steps", "2")
    parts = learn(small_base, video, tmp_path / "parts.safetensors", "--steps", "3")
    assert "resuming at step 2" in capsys.readouterr().out
    assert torch.equal(whole.tokens, parts.tokens) and whole.metadata["steps"] == "3"
    states = [load_file(checkpoint_of(tmp_path / f"{name}.safetensors")) for name in ("whole", "parts")]
    assert all(torch.equal(states[0][key], value) for key, value in states[1].items())


def test_each_picture_of_a_list_is_tried_every_so_many_steps_and_what_is_learned_stays_the_same(
    small_base, base, video, benchmark, tmp_path
):
    listed = benchmark / "captions" / "human" / "rotate" / "val_image.csv"
    with listed.open("a") as lines:
        lines.write("benchmark/target_images/human/girl.webp,She turns again\n")
    plain = learn(small_base, video, tmp_path / "plain.safetensors", "--steps", "4")
    tried = ["--steps", "4", "--validation", listed, "--sample-every", "2"]
    watched = learn(small_base, video, tmp_path / "watched.safetensors", *tried)
    assert torch.equal(plain.tokens, watched.tokens)
    kept = sorted((tmp_path / "watched.samples").rglob("*.mp4"))
    assert [file.relative_to(tmp_path / "watched.samples").as_posix() for file in kept] == [
        f"step_{step:06d}/{number:02d}_girl.mp4" for step in (2, 4) for number in (1, 2)
    ]
    frames = [read_video(file, 8) for file in kept]
    assert {len(each) for each in frames} == {own_values(base.transformer.config, base.vae.config).num_frames}


def settings_for(data, *options):
    return parse_arguments(["--base", "unused", "--data", str(data), "--output", "out.safetensors", *options])


def test_of_a_video_crops_are_cut_and_a_lists_clips_are_taken_as_they_are(base, video):
    videos, captions = read_clips(settings_for(video, "--crops", "4", "--caption", "it jumps"), base)
    assert len(videos) == 4 and captions == ["it jumps"]
    listed = write_rows(
        video.parent / "crop.csv", HEADER, *(["jump.mp4", start, 70, 30, 0, f"from {start}"] for start in (0, 20))
    )
    videos, captions = read_clips(settings_for(listed), base)
    assert len(videos) == 2 and captions == ["from 0", "from 20"]


def test_a_video_that_is_not_there_is_said_by_its_name(base, tmp_path):
    with pytest.raises(FileError, match="none.mp4"):
        read_clips(settings_for(tmp_path / "none.mp4"), base)
