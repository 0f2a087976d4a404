import csv

import pytest
from launches import assert_same_first_moments, checkpoint_of, launch
from safetensors.torch import load_file
from videos import make_video

from flexiact_core.flexiact.train_refadapter import parse_arguments, train

MODULE = "flexiact_core.flexiact.train_refadapter"
pytestmark = pytest.mark.usefixtures("alone_on_cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    with (folder / "data.csv").open("w", newline="") as lines:
        rows = csv.writer(lines)
        for number in range(3):
            make_video(folder / f"{number}.mp4", num_frames=70, fps=30)
            rows.writerow([f"{number}.mp4", 0, 70, 30, 0, f"thing {number} moves"])
    return folder / "data.csv"


def settings(small_base, data, output, *options):
    places = ["--base", small_base, "--data", data, "--output", output, "--cache", data.parent / "cache"]
    return list(map(str, [*places, "--rank", "4", "--learning-rate", "1e-3", "--dtype", "float32", *options]))


def learn(*given):
    return train(parse_arguments(settings(*given)))


def test_two_processes_learn_what_one_learns_from_twice_the_batch(small_base, data, tmp_path):
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    learn(small_base, data, one, "--steps", "2", "--batch-size", "2")
    launch(MODULE, settings(small_base, data, two, "--steps", "2", "--batch-size", "1"), tmp_path, processes=2)
    assert_same_first_moments(checkpoint_of(one), checkpoint_of(two))


def test_the_command_goes_on_from_its_checkpoint(small_base, data, tmp_path, capsys):
    learn(small_base, data, tmp_path / "whole.safetensors", "--steps", "4")
    learn(small_base, data, tmp_path / "parts.safetensors", "--steps", "2")
    learn(small_base, data, tmp_path / "parts.safetensors", "--steps", "4")
    assert "resuming at step 2" in capsys.readouterr().out
    whole, parts = load_file(tmp_path / "whole.safetensors"), load_file(tmp_path / "parts.safetensors")
    assert all((whole[key] == parts[key]).all() for key in whole)


def test_an_adapter_is_tried_on_each_picture_of_a_list(small_base, data, benchmark, tmp_path):
    listed = benchmark / "captions" / "human" / "rotate" / "val_image.csv"
    output = tmp_path / "tried.safetensors"
    learn(small_base, data, output, "--steps", "3", "--validation", listed, "--sample-every", "2")
    kept = [file.relative_to(tmp_path).as_posix() for file in (tmp_path / "tried.samples").rglob("*.mp4")]
    assert kept == ["tried.samples/step_000002/01_girl.mp4"]
