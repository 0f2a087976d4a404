"""The pack beside other packs, in any folder, switched off and on again, and with workflows of earlier releases.

tests/recorded/<version> holds what a release shipped, as its users saved it: each workflow, and beside it the prompt
that the frontend of that day made of it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from host.browser import NO_CHROMIUM, Frontend, find_chromium, open_browser
from host.environment import ROOT, comfyui_path
from host.media import read_frames
from host.server import PACK_FOLDER, ComfyServer
from host.workflow import MATCHED, find_workflow, to_prompt

from .conftest import fit_to_small_model, load_workflow

pytestmark = pytest.mark.xdist_group("host")

RECORDED = Path(ROOT) / "tests" / "recorded"
OLD_PROMPTS = sorted(RECORDED.glob("*/*.api.json"))
NODES = sorted(json.loads((Path(ROOT) / "locales" / "en" / "nodeDefs.json").read_text(encoding="utf-8")))
# Loads the pack as ComfyUI's start does, after all that ComfyUI itself brings.
LOAD_PACK = """
import asyncio, json, sys, time
comfyui, base, pack = sys.argv[1:]
sys.argv[1:] = []
sys.path[0] = comfyui
from comfy.cli_args import args
args.cpu, args.base_directory = True, base
import nodes, server
loop = asyncio.new_event_loop()
server.PromptServer(loop)
loop.run_until_complete(nodes.init_extra_nodes(init_custom_nodes=False, init_api_nodes=False))
before, started = set(sys.modules), time.process_time()
loaded = loop.run_until_complete(nodes.load_custom_node(pack))
seconds = time.process_time() - started
print(json.dumps([loaded, seconds, sorted(set(sys.modules) - before)]))
"""

# Inputs with another default since: a workflow saved without a value for one takes today's.
NEW_DEFAULTS = {("LoadCogVideoXI2V", "weights", "as stored"): "auto"}

each_old_workflow = pytest.mark.parametrize(
    "api", OLD_PROMPTS, ids=lambda path: f"{path.parent.name}-{path.name.removesuffix('.api.json')}"
)
each_renderer = pytest.mark.parametrize(("renderer", "is_vue"), [("classic", False), ("nodes2", True)])
needs_chromium = pytest.mark.skipif(find_chromium() is None, reason=NO_CHROMIUM)


class FrontendWithoutPack(Frontend):
    """The frontend of a ComfyUI in which the pack is switched off."""

    def open(self) -> None:
        self.server.post("/api/settings", {"Comfy.TutorialCompleted": True, "Comfy.Locale": "en"} | self.settings)
        self.page.goto(self.server.url, wait_until="domcontentloaded")
        ready = "window.app?.isGraphReady && app.extensionManager && !document.querySelector('#splash-loader')"
        self.page.wait_for_function(f"() => {ready}", timeout=120_000)
        self.page.evaluate("() => { window.heard = {} }")
        self.new_graph()


def saved_workflow(api: Path) -> Path:
    return api.with_name(api.name.replace(".api.json", ".json"))


def check_prompt(now: dict, then: dict, object_info: dict) -> None:
    """Fails if an input of `then` has another value in `now`, or an input that is new has not its default."""
    assert {key: node["class_type"] for key, node in now.items()} == {
        key: node["class_type"] for key, node in then.items()
    }
    for key, node in then.items():
        name, inputs = node["class_type"], now[key]["inputs"]
        expected = {
            input_: value if isinstance(value, list) else NEW_DEFAULTS.get((name, input_, value), value)
            for input_, value in node["inputs"].items()
        }
        assert {input_: inputs.get(input_) for input_ in expected} == expected, name
        for new in inputs.keys() - node["inputs"].keys():
            options = object_info[name]["input"]["optional"][new][1]
            assert inputs[new] == options["default"], f"{name}: {new}"


def check_links(workflow: dict, object_info: dict) -> None:
    """Fails if a link would bring something else than when it was saved."""
    types = {node["id"]: node["type"] for node in workflow["nodes"]}
    for _, source, slot, _, _, kind in workflow["links"]:
        # An output that takes the type of what comes in is saved with that type.
        assert object_info[types[source]]["output"][slot] in (kind, MATCHED), f"{types[source]}: output {slot}"


def prompt_of(frontend: Frontend) -> dict:
    return frontend.page.evaluate("async () => (await app.graphToPrompt()).output")


def test_start_up_takes_no_time_and_brings_no_package(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LOAD_PACK, comfyui_path(), str(tmp_path), ROOT], capture_output=True, text=True,
        cwd=tmp_path, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    loaded, seconds, modules = json.loads(done.stdout.splitlines()[-1])
    assert loaded, done.stderr
    # Of the processor's time, which a busy machine does not stretch.
    assert seconds < 2
    # ComfyUI gives the pack's modules its folder for a name.
    assert [name for name in modules if not name.startswith(ROOT.replace(".", "_x_"))] == []


def test_no_node_has_the_id_of_one_of_comfyuis(object_info):
    # Of two nodes with one id ComfyUI keeps its own, and says nothing.
    assert {name: object_info[name]["python_module"] for name in NODES} == dict.fromkeys(
        NODES, f"custom_nodes.{PACK_FOLDER}"
    )


@pytest.mark.parametrize("other", json.loads((RECORDED / "other_packs.json").read_text()), ids=lambda o: o["pack"])
def test_no_node_has_the_id_of_one_of_another_pack(other):
    assert sorted(set(NODES) & set(other["ids"])) == []
    assert [name for name in NODES if name.startswith(tuple(other["prefixes"]))] == []


def test_the_pack_works_in_a_folder_of_any_name(tmp_path):
    name = "my flexi-act v1.0 (\u52a8\u4f5c)"
    host = ComfyServer(tmp_path)
    folders = host.base / "custom_nodes"
    (folders / PACK_FOLDER).rename(folders / name)
    with host:
        assert host.import_errors() == []
        assert {host.object_info()[node]["python_module"] for node in NODES} == {f"custom_nodes.{name}"}
        assert find_workflow("flexiact_quickstart").stem in host.get("/workflow_templates")[name]
        prompt = load_workflow(RECORDED / "0.1.0" / "flexiact_quickstart.api.json")
        (sampler,) = (node["inputs"] for node in prompt.values() if node["class_type"] == "FlexiActSampler")
        sampler["steps"] = 2
        videos = [file for file in host.output_files(host.run(prompt)) if file.suffix == ".mp4"]
        assert [len(read_frames(video)) for video in videos] == [17, 17]


@each_old_workflow
def test_an_old_workflow_fits_the_nodes_of_today(api, object_info):
    workflow = load_workflow(saved_workflow(api))
    check_prompt(to_prompt(workflow, object_info), load_workflow(api), object_info)
    check_links(workflow, object_info)


@each_old_workflow
def test_an_old_prompt_runs(api, server):
    run = server.run(fit_to_small_model(load_workflow(api)))
    assert any(file.suffix == ".mp4" for file in server.output_files(run))


@needs_chromium
@each_renderer
def test_an_old_workflow_survives_the_pack_being_switched_off(renderer, is_vue, server, object_info, tmp_path):
    settings = {"Comfy.VueNodes.Enabled": is_vue, "Comfy.Workflow.Persist": False}
    saved = {}
    with ComfyServer(tmp_path, "--cpu", "--disable-all-custom-nodes") as without_pack, open_browser() as browser:
        frontend = FrontendWithoutPack(browser, without_pack, renderer, settings)
        for api in OLD_PROMPTS:
            frontend.new_graph()
            frontend.drop(saved_workflow(api))
            assert set(frontend.missing_node_types()) & set(NODES)
            # What the menu's Save writes.
            saved[api] = tmp_path / f"{api.parent.name}-{saved_workflow(api).name}"
            saved[api].write_text(json.dumps(frontend.page.evaluate("() => app.graph.serialize()")), encoding="utf-8")
        frontend.shoot("old-workflow-without-pack")
        frontend.page.close()
        frontend = Frontend(browser, server, renderer, settings)
        for api in OLD_PROMPTS:
            for file in (saved_workflow(api), saved[api]):
                frontend.new_graph()
                frontend.drop(file)
                check_prompt(prompt_of(frontend), load_workflow(api), object_info)
        frontend.shoot("old-workflow-with-pack")
