"""The pack as ComfyUI Manager installs it, into packages and a ComfyUI of the test's own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from host.environment import ROOT, VENV, comfyui_path

pytestmark = pytest.mark.skipif(
    "FLEXIACT_MANAGER" not in os.environ, reason="it installs packages, which takes minutes: run `make manager`"
)

PIN = "comfyui_manager"
# What requirements.txt asks for.
ASKED_FOR = ("diffusers", "accelerate", "peft")
# ComfyUI brings them, of the kind that fits the machine; another one breaks it.
UNTOUCHED = ("torch", "torchvision", "torchaudio", "numpy", "transformers", "safetensors", "pillow")


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """Packages as the tests have them, linked, with the Manager that ComfyUI pins, without what the pack asks for."""
    folder = tmp_path_factory.mktemp("packages") / "venv"
    if os.name == "nt" or os.stat(VENV).st_dev != os.stat(folder.parent).st_dev:
        pytest.skip("The packages can be linked only on the same disk, and not on Windows: a copy takes 6 GB.")
    shutil.copytree(VENV, folder, symlinks=True, copy_function=os.link)
    pins = (Path(comfyui_path()) / "manager_requirements.txt").read_text(encoding="utf-8")
    (pin,) = (line for line in pins.splitlines() if line.startswith(PIN))
    command = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", pin]
    installed = subprocess.run(command, capture_output=True, text=True)
    if installed.returncode:
        pytest.skip(f"pip could not fetch {pin}: {installed.stderr.strip().splitlines()[-1]}")
    subprocess.run([*command[:3], "uninstall", "--quiet", "--yes", *ASKED_FOR], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """The address of a git repository of this checkout, as committed, on this machine."""
    folder = tmp_path_factory.mktemp("repository")
    bare = folder / "ComfyUI-FlexiAct.git"
    if not (Path(ROOT) / ".git").exists() or not shutil.which("git"):
        pytest.skip("This is no git checkout: there is nothing to clone.")
    subprocess.run(["git", "clone", "--quiet", "--bare", ROOT, bare], check=True)
    subprocess.run(["git", "-C", bare, "update-server-info"], check=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/{bare.name}"
    server.shutdown()


def versions(packages: Path) -> dict[str, str]:
    """The versions of what is installed, by name in small letters."""
    command = [packages / "bin" / "python", "-m", "pip", "list", "--format=freeze"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return {name.lower(): version for name, _, version in (line.partition("==") for line in lines)}


def test_the_manager_installs_the_pack_and_leaves_what_comfyui_brings(packages, repository, tmp_path):
    comfyui = shutil.copytree(comfyui_path(), tmp_path / "ComfyUI", ignore=shutil.ignore_patterns("ComfyUI-FlexiAct"))
    before = versions(packages)
    run = partial(
        subprocess.run, cwd=comfyui, capture_output=True, text=True, env=os.environ | {"COMFYUI_PATH": str(comfyui)}
    )
    python = packages / "bin" / "python"
    said = run([python, "-m", "cm_cli", "install", repository, "--user-directory", tmp_path / "user"])
    assert (comfyui / "custom_nodes" / "ComfyUI-FlexiAct" / "pyproject.toml").is_file(), said.stdout + said.stderr
    after = versions(packages)
    assert not before.keys() & set(ASKED_FOR) and after.keys() >= set(ASKED_FOR)
    assert {name: after[name] for name in UNTOUCHED} == {name: before[name] for name in UNTOUCHED}
    started = run([python, "main.py", "--cpu", "--enable-manager", "--quick-test-for-ci"])
    log = started.stdout + started.stderr
    assert started.returncode == 0, log
    assert re.search(r"seconds: .*ComfyUI-FlexiAct", log) and "IMPORT FAILED" not in log
