"""The whole way of a user who has nothing: a template, the missing files, fetching them, the video."""

from __future__ import annotations

from pathlib import Path

import pytest
from host.browser import Frontend
from host.hub import Hub, folder_content, serve
from host.media import put_clip
from host.server import ComfyServer
from host.workflow import find_workflow
from small_models import make_base, make_fae, make_refadapter

BASE, FLEXIACT = "models/zai-org/CogVideoX-5b-I2V", "models/shiyi0408/FlexiAct"
DANCE, REFADAPTER = "ckpts/FAE/motion_ckpts/Dance.pt", "ckpts/refnetlora_step40000_model.pt"
TEMPLATE = find_workflow("flexiact_transfer")
CHOOSERS = ("LoadCogVideoXI2V", "ApplyRefAdapter", "LoadFAEEmbedding")


@pytest.fixture(scope="module")
def hub(browser, tmp_path_factory):
    """A hub on this machine that holds small models under the released names."""
    folder = tmp_path_factory.mktemp("hub")
    make_base(folder / "base")
    make_fae(folder / "flexiact" / DANCE)
    make_refadapter(folder / "flexiact" / REFADAPTER)
    clip = put_clip(folder / "flexiact" / "ckpts" / "FAE" / "reference_videos")
    clip.rename(clip.with_name("Dance.mp4"))
    content = {BASE: folder_content(folder / "base"), FLEXIACT: folder_content(folder / "flexiact")}
    with serve(Hub(content)) as running:
        yield running


@pytest.fixture
def comfy(browser, hub, tmp_path):
    """A ComfyUI with nothing in its model folders, whose hub is the one on this machine."""
    environment = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0"}
    server = ComfyServer(tmp_path / "fresh", environment=environment)
    with server:
        yield server


def run(frontend: Frontend) -> str:
    frontend.press_run()
    return frontend.wait_until_heard("execution_success", "execution_error")


def sentences(frontend: Frontend) -> list[str]:
    """What the nodes say of missing files, where it can be seen."""
    shown = frontend.page.locator(".flexiact-missing")
    return [text for text in (one.inner_text() for one in shown.all() if one.is_visible()) if text]


def test_from_the_template_to_a_video_with_nothing_but_the_browser(browser, comfy, hub):
    # A weight file of the base is cut in the middle once; of an action another size is announced once.
    weights = next(name for name in hub.content[BASE] if name.startswith("transformer/") and "safetensors" in name)
    hub.cut, hub.lie, hub.asked = {weights}, {DANCE}, []
    frontend = Frontend(browser, comfy, "nodes2", {"Comfy.VueNodes.Enabled": True})
    page = frontend.page
    frontend.browse_templates("ComfyUI-FlexiAct", len(list(TEMPLATE.parent.glob("*.json"))))
    page.get_by_test_id(f"template-workflow-{TEMPLATE.stem}").click()
    page.wait_for_function("() => app.graph.nodes.some((node) => node.type === 'GetReleasedModels')")
    page.wait_for_timeout(1500)
    frontend.shoot("missing-files")
    said = sentences(frontend)
    assert len(said) == len(CHOOSERS) and all("Get Released Models" in text for text in said)
    frontend.set_widgets({"GetReleasedModels": {"download": True}})
    assert run(frontend) == "execution_error"
    (error,) = frontend.heard("execution_error")
    assert error["node_type"] == "GetReleasedModels" and "were announced" in error["exception_message"]
    frontend.shoot("announced-wrongly")
    assert run(frontend) == "execution_success"
    page.wait_for_function(
        "() => [...document.querySelectorAll('.flexiact-missing')].every((one) => !one.isConnected)"
    )
    frontend.shoot("fetched")
    models = Path(comfy.base) / "models"
    assert (models / "flexiact" / DANCE).read_bytes() == hub.content[FLEXIACT][DANCE]
    for name, content in hub.content[BASE].items():
        assert (models / "CogVideo" / "CogVideoX-5b-I2V" / name).read_bytes() == content
    assert sum(path.endswith(weights) for path, _ in hub.asked) == 2
    assert sentences(frontend) == []
    assert run(frontend) == "execution_success"
    video = page.locator("video[src*='type=output']").first
    video.wait_for()
    assert video.evaluate("(video) => video.videoWidth") == 64
    frontend.shoot("from-nothing-to-a-video")
    # The host's own marks of what was missing have gone with the lists that were read anew.
    assert page.evaluate("() => app.graph.nodes.filter((node) => node.has_errors).length") == 0
    page.close()
