from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from host.browser import NO_CHROMIUM, Frontend, find_chromium, open_browser
from host.environment import ROOT, comfyui_path
from host.media import put_clip, put_photo
from host.models import NAME, put_models
from host.server import ComfyServer

from flexiact_core.video_files import read_video, write_preview

SHIPPED = Path(ROOT) / "flexiact_core" / "world" / "weights" / "flexiact"
SHOWN, UNSHOWN = f"fae/{NAME}.safetensors", "fae/unshown.safetensors"
RENDERERS = {"classic": False, "nodes2": True}


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items):
    for item in items:
        if "comfy" in getattr(item, "fixturenames", ()):
            # All in one process of pytest-xdist: server and browser are started once.
            item.add_marker(pytest.mark.xdist_group("browser"))


# Of one module, not of the session: while Playwright runs, its process cannot run another event loop.
@pytest.fixture(scope="module")
def browser():
    """A running Chromium; without one on the machine the test is skipped."""
    if find_chromium() is None:
        pytest.skip(NO_CHROMIUM)
    with open_browser() as running:
        yield running


@pytest.fixture(scope="session")
def comfy(tmp_path_factory):
    """A running ComfyUI of these tests' own: the browser writes settings into it. Each action but one has a preview."""
    if find_chromium() is None:
        pytest.skip(NO_CHROMIUM)
    if not os.path.isfile(os.path.join(comfyui_path(), "main.py")):
        pytest.fail("There is no ComfyUI to test in: run `make test`, or `make setup` once.")
    server = ComfyServer(tmp_path_factory.mktemp("browser"))
    put_models(server.base / "models")
    put_photo(server.base / "input")
    put_previews(server.base / "models" / "flexiact", put_clip(server.base / "input"))
    with server:
        yield server


def put_previews(actions: Path, clip: Path) -> None:
    """A preview beside each action in a folder, and an action that has none."""
    shutil.copyfile(actions / SHOWN, actions / UNSHOWN)
    preview = write_preview((actions / SHOWN).with_suffix(".mp4"), read_video(clip, 8) / 255, 8)
    # The user's own models come before those of the same name that the pack brings.
    shutil.copytree(SHIPPED, actions, dirs_exist_ok=True)
    for action in SHIPPED.rglob("*.safetensors"):
        shutil.copyfile(preview, (actions / action.relative_to(SHIPPED)).with_suffix(".mp4"))


@pytest.fixture(scope="module", params=RENDERERS)
def opened(request, browser, comfy):
    """The frontend, once with each renderer of nodes."""
    frontend = Frontend(browser, comfy, request.param, {"Comfy.VueNodes.Enabled": RENDERERS[request.param]})
    yield frontend
    frontend.page.close()


@pytest.fixture
def frontend(opened, request):
    """The frontend with an empty graph. A test that fails leaves a screenshot of its name."""
    opened.new_graph()
    yield opened
    if getattr(request.node, "failed", False):
        opened.shoot(f"failed-{request.node.originalname}")
        # Dialogs and panels that a failed test leaves open are gone after this.
        opened.open()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.when == "call":
        item.failed = report.failed
    return report
