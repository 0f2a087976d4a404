"""What ComfyUI's registry and Manager, and ComfyUI's checks of packs, hold the repository to."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from host.environment import ROOT

ROOT = Path(ROOT)
# A pack must not bring these: they are ComfyUI's, chosen for the user's machine.
OF_THE_HOST = {"torch", "torchvision", "torchaudio", "transformers", "numpy", "safetensors", "pillow", "av", "einops"}
# Ways around ComfyUI's devices, dtypes and layers, in the words that its checks look for; spelt so that
# this file does not hold them.
AROUND_THE_HOST = [
    "." + "cuda(", '.to("' + "cuda", "torch." + "autocast(", "nn." + "Linear(", "nn." + "Conv1d(", "nn." + "Conv2d(",
    "nn." + "Conv3d(", "Conv" + "Transpose", "nn." + "LayerNorm(", "nn." + "GroupNorm(", "nn." + "Embedding(",
]  # fmt: skip


def requirements() -> list[str]:
    return (ROOT / "requirements.txt").read_text().split()


def python_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.py"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()]


def test_requirements_are_lower_bounds_and_leave_the_host_alone():
    for line in requirements():
        assert re.fullmatch(r"[a-z]+>=[\d.]+", line), line
        assert line.split(">=")[0] not in OF_THE_HOST


def test_pyproject_asks_for_the_same_packages():
    text = (ROOT / "pyproject.toml").read_text()
    listed = re.search(r"^dependencies = \[(.*?)\]", text, re.DOTALL | re.MULTILINE).group(1)
    assert re.findall(r'"(.+?)"', listed) == requirements()


def test_source_keeps_to_the_hosts_devices_and_layers():
    sources = {file: file.read_text(encoding="utf-8") for file in python_files()}
    assert [(file, words) for file, source in sources.items() for words in AROUND_THE_HOST if words in source] == []


def test_the_core_exists_once_under_both_of_its_names():
    from flexiact_pack.flexiact_core import errors as of_the_pack
    from flexiact_pack.flexiact_core.checkpoint import CheckpointError

    import flexiact_core.errors as plain

    assert plain is of_the_pack
    assert CheckpointError is plain.CheckpointError
