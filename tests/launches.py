"""Training commands as users start them: one process by python, two by accelerate, on the CPU."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from safetensors.torch import load_file

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}


def command(module: str, settings, processes: int = 1) -> list[str]:
    """The command line of a training module; with more than one process, accelerate's."""
    if processes == 1:
        return [sys.executable, "-m", module, *map(str, settings)]
    launcher = ["accelerate.commands.accelerate_cli", "launch", "--multi_gpu", "--num_processes", str(processes)]
    return [sys.executable, "-m", *launcher, "-m", module, *map(str, settings)]


def launch(module: str, settings, folder: Path, processes: int = 1) -> str:
    """Runs a training in `folder` to its end; what it said."""
    run = subprocess.run(
        command(module, settings, processes), env=os.environ | ENVIRONMENT, cwd=folder, capture_output=True,
        text=True, timeout=1200,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    return run.stdout


def interrupt(module: str, settings, folder: Path, after: str, processes: int = 1) -> str:
    """Starts a training and sends Ctrl-C when it has said `after`; all that it said. It must end by itself."""
    with subprocess.Popen(
        command(module, settings, processes), env=os.environ | ENVIRONMENT, cwd=folder, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    ) as run:  # fmt: skip
        said = []
        for line in run.stdout:
            said.append(line)
            if after in line:
                run.send_signal(signal.SIGINT)
                break
        rest, _ = run.communicate(timeout=600)
    return "".join([*said, rest])


def assert_same_first_moments(one: Path, two: Path) -> None:
    """Two checkpoints come from the same gradients: each moment is within 1e-5 of the largest of its kind."""
    first, second = load_file(one), load_file(two)
    averages = [key for key in first if "exp_avg/" in key]
    assert averages and first.keys() == second.keys()
    for key in averages:
        assert (first[key] - second[key]).abs().max() <= 1e-5 * first[key].abs().max(), key


def checkpoint_of(output: Path) -> Path:
    """Where a training keeps its state."""
    return output.with_suffix(".checkpoint.safetensors")
