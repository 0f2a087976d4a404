import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from videos import make_video

ROOT = Path(__file__).parents[3]
MODULE = "flexiact_core.flexiact.train_refadapter"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    with (folder / "data.csv").open("w", newline="") as lines:
        rows = csv.writer(lines)
        for number in range(3):
            make_video(folder / f"{number}.mp4", num_frames=70, fps=30)
            rows.writerow([f"{number}.mp4", 0, 70, 30, 0, f"thing {number} moves"])
    return folder / "data.csv"


def train(launcher, small_base, data, output, *options):
    settings = ["--base", small_base, "--data", data, "--output", output, "--cache", data.parent / "cache"]
    settings += ["--rank", "4", "--learning-rate", "1e-3", "--dtype", "float32", *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    run = subprocess.run(
        [sys.executable, "-m", *launcher, MODULE, *map(str, settings)],
        env=environment, cwd=output.parent, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    return run.stdout


def test_two_processes_learn_what_one_learns_from_twice_the_batch(small_base, data, tmp_path):
    train([], small_base, data, tmp_path / "one.safetensors", "--steps", "2", "--batch-size", "2")
    launcher = ["torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m"]
    train(launcher, small_base, data, tmp_path / "two.safetensors", "--steps", "2", "--batch-size", "1")
    one, two = (load_file(tmp_path / f"{name}.checkpoint.safetensors") for name in ("one", "two"))
    averages = [key for key in one if "exp_avg/" in key]
    assert averages
    for key in averages:
        # The mean of the gradients, so equal only if every step's gradients were.
        assert (one[key] - two[key]).abs().max() <= 1e-5 * one[key].abs().max(), key


def test_the_command_goes_on_from_its_checkpoint(small_base, data, tmp_path):
    train([], small_base, data, tmp_path / "whole.safetensors", "--steps", "4")
    train([], small_base, data, tmp_path / "parts.safetensors", "--steps", "2")
    output = train([], small_base, data, tmp_path / "parts.safetensors", "--steps", "4")
    assert "resuming at step 2" in output
    whole, parts = load_file(tmp_path / "whole.safetensors"), load_file(tmp_path / "parts.safetensors")
    assert all((whole[key] == parts[key]).all() for key in whole)
