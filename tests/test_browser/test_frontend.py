"""The pack as a user meets it: ComfyUI's frontend in a real browser, with both of its renderers of nodes.

Screenshots lie in .cache/screenshots.
"""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import pytest
from host.browser import NO_ARIAL, SCREEN, Frontend
from host.environment import ROOT
from host.models import NAME
from host.workflow import blueprint_to_prompt, find_workflow, short_name
from PIL import Image
from words import locale_words

WORKFLOWS = sorted((Path(ROOT) / "workflows").glob("*.json"))
QUICKSTART, TRANSFER, NATIVE = (find_workflow(f"flexiact_{name}") for name in ("quickstart", "transfer", "native"))
QUICKSTARTS = [path for path in WORKFLOWS if "quickstart" in path.stem]
BLUEPRINTS = sorted((Path(ROOT) / "subgraphs").glob("*.json"))
PACK_CARD = "ComfyUI-FlexiAct"
ENGLISH, CHINESE = locale_words("en"), locale_words("zh")
# What turns the transfer workflow into one that a small random model runs on a CPU.
SMALL = {
    "LoadCogVideoXI2V": {"model": NAME},
    "ApplyRefAdapter": {"adapter_file": f"refadapter/{NAME}.safetensors"},
    "LoadFAEEmbedding": {"fae_file": f"fae/{NAME}.safetensors"},
    "LoadImage": {"image": "photo.png"},
    "FlexiActSampler": {"width": 64, "height": 64, "num_frames": 17, "steps": 3},
}

# The small world's own.
SMALL_WORLD_STEPS = 25

# Of what is the same in both renderers.
classic_only, nodes2_only = (pytest.mark.parametrize("opened", [name], indirect=True) for name in ("classic", "nodes2"))
each_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=short_name)


def overlaps(boxes: dict[str, list[float]]) -> list[tuple[str, str]]:
    """Pairs of nodes that lie on each other."""
    return [
        (one, other)
        for (one, a), (other, b) in combinations(boxes.items(), 2)
        if a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
    ]


def check_drawing(frontend: Frontend, workflow: dict) -> None:
    types = sorted(node["type"] for node in workflow["nodes"])
    assert frontend.page.evaluate("() => app.graph.nodes.map((n) => n.type).sort()") == types
    assert frontend.missing_node_types() == []
    assert overlaps(frontend.boxes()) == []


def search(frontend: Frontend, *words: str) -> list[list[str]]:
    """The titles that the search box gives for each of some words, best first."""
    page = frontend.page
    dialog = page.get_by_role("dialog")
    box = dialog.get_by_role("textbox").or_(dialog.get_by_role("combobox")).first
    for _ in range(5):
        # A busy machine can be too slow for two clicks to count as a double one.
        page.mouse.dblclick(900, 600)
        page.wait_for_timeout(500)
        if box.is_visible():
            break
    titles = []
    for typed in words:
        box.fill(typed)
        page.wait_for_timeout(400)
        results = page.get_by_test_id("result-item").all_inner_texts()
        titles.append([result.splitlines()[0] for result in results])
    page.keyboard.press("Escape")
    page.get_by_role("dialog").first.wait_for(state="hidden")
    return titles


@classic_only
def test_every_node_is_found_by_name_and_by_alias(frontend, comfy):
    infos = [comfy.get(f"/object_info/{node_id}")[node_id] for node_id in ENGLISH]
    names = [info["display_name"] for info in infos]
    # What stands in brackets are further words for it, and nobody types a name that long.
    by_name = search(frontend, *(name.partition(" (")[0] for name in names))
    assert [name for name, titles in zip(names, by_name) if name not in titles[:3]] == []
    by_alias = search(frontend, *(info["search_aliases"][0] for info in infos))
    assert [name for name, titles in zip(names, by_alias) if name not in titles] == []


@pytest.mark.parametrize(
    ("words", "node_id", "most"),
    [
        ("action", "FlexiActSampler", 1),
        ("motion transfer", "FlexiActSampler", 1),
        ("animate image", "FlexiActSampler", 1),
        ("dance", "DynamiCtrlSampler", 8),
        ("pose", "PoseToImage", 8),
        ("image to video", "CogVideoXImageToVideo", 8),
        ("train action", "TrainFAE", 8),
    ],
)
def test_what_users_call_it_finds_the_node(frontend, words, node_id, most):
    (titles,) = search(frontend, words)
    assert ENGLISH[node_id]["display_name"] in titles[:most]


def test_workflows_open_from_templates_with_their_thumbnails(frontend):
    page = frontend.page
    cards = frontend.browse_templates(PACK_CARD, len(WORKFLOWS))
    for path in WORKFLOWS:
        card = page.get_by_test_id(f"template-workflow-{path.stem}")
        # Pictures are loaded when they come into view.
        card.scroll_into_view_if_needed()
        picture = card.locator("img").first
        picture.evaluate("(img) => img.decode()")
        with Image.open(path.with_suffix(".jpg")) as thumbnail:
            # The frontend's own picture, for templates that bring none, is of another size.
            assert picture.evaluate("(img) => [img.naturalWidth, img.naturalHeight]") == list(thumbnail.size)
    assert sorted(one.get_attribute("data-testid") for one in cards.all()) == [
        f"template-workflow-{path.stem}" for path in sorted(WORKFLOWS)
    ]
    frontend.shoot("templates")
    card.click()
    workflow = json.loads(path.read_text(encoding="utf-8"))
    page.wait_for_function("(count) => app.graph.nodes.length === count", arg=len(workflow["nodes"]))
    page.wait_for_timeout(1000)
    frontend.shoot(f"opened-{short_name(path)}")
    check_drawing(frontend, workflow)


SMALL_SCREEN = {"width": 1280, "height": 720}


@pytest.fixture
def small_screen(frontend):
    """The frontend in a window of 1280x720."""
    frontend.page.set_viewport_size(SMALL_SCREEN)
    yield frontend
    frontend.page.set_viewport_size(SCREEN)


@nodes2_only
@each_workflow
def test_a_workflow_fits_a_small_screen_and_its_pictures_have_room(small_screen, path):
    small_screen.drop(path)
    small_screen.shoot(f"dropped-{short_name(path)}")
    check_drawing(small_screen, json.loads(path.read_text(encoding="utf-8")))
    assert small_screen.scale() >= 0.6
    cut_off = small_screen.cut_off()
    small_screen.show_results("photo.png", "clip.mp4")
    assert overlaps(small_screen.boxes()) == []
    if not small_screen.has_arial():
        pytest.skip(NO_ARIAL)
    assert cut_off == []


@classic_only
@each_workflow
def test_a_workflow_opens_by_dropping_its_file(frontend, path):
    frontend.drop(path)
    check_drawing(frontend, json.loads(path.read_text(encoding="utf-8")))


def test_a_graph_can_be_read_on_a_screen_of_any_size(small_screen):
    page = small_screen.page
    for width, height in ((1280, 720), (1600, 900), (1920, 1080)):
        page.set_viewport_size({"width": width, "height": height})
        small_screen.new_graph()
        small_screen.drop(QUICKSTART)
        small_screen.shoot(f"fits-{width}")
        assert small_screen.scale() >= 0.6
        assert overlaps(small_screen.boxes()) == []


@pytest.mark.parametrize("path", QUICKSTARTS, ids=short_name)
def test_app_mode_shows_what_a_quickstart_asks_for(frontend, path):
    workflow = json.loads(path.read_text(encoding="utf-8"))
    frontend.drop(path)
    frontend.command("Comfy.ToggleLinear")
    try:
        for _, widget in workflow["extra"]["linearData"]["inputs"]:
            # The note, out of sight now, names some of them, too.
            frontend.page.locator(f":text-is('{widget}'):visible").first.wait_for()
        frontend.shoot(f"app-mode-{short_name(path)}")
    finally:
        frontend.command("Comfy.ToggleLinear")


@pytest.mark.parametrize(
    ("path", "sampler_type"),
    [(QUICKSTART, "FlexiActSampler"), (NATIVE, "SamplerCustomAdvanced")],
    ids=("quickstart", "native"),
)
def test_a_workflow_runs_to_a_playing_video_with_previews_on_the_way(frontend, comfy, path, sampler_type):
    # The other renderer's run would leave nothing to compute.
    comfy.post("/free", {"unload_models": True, "free_memory": True})
    frontend.drop(path)
    frontend.press_run()
    sampler = frontend.node_id(sampler_type)
    frontend.page.wait_for_function(
        "(id) => heard.execution_error || heard.b_preview_with_metadata?.some((p) => p.displayNodeId === id)",
        arg=sampler,
        timeout=300_000,
    )
    frontend.shoot(f"{short_name(path)}-running")
    assert frontend.wait_until_heard("execution_success", "execution_error") == "execution_success"
    previews = [preview for preview in frontend.heard("b_preview_with_metadata") if preview["displayNodeId"] == sampler]
    types = [node["type"] for node in json.loads(path.read_text(encoding="utf-8"))["nodes"]]
    assert len(previews) >= SMALL_WORLD_STEPS // 2
    if sampler_type in ENGLISH:
        # The preview makes room for the result.
        frontend.page.wait_for_function(
            "(id) => !app.nodePreviewImages[id] && !document.querySelector(`[data-node-id='${id}'] img`)", arg=sampler
        )
    videos = frontend.page.locator("video[src*='type=output']")
    for number in range(types.count("SaveVideo")):
        video = videos.nth(number)
        video.wait_for()
        video.evaluate("(video) => { video.muted = true; video.loop = true; return video.play() }")
        frontend.page.wait_for_timeout(700)
        state = "(video) => [video.currentTime > 0, video.error, video.videoWidth > 0]"
        assert video.evaluate(state) == [True, None, True]
    frontend.command("Comfy.Canvas.FitView")
    frontend.page.wait_for_timeout(700)
    frontend.shoot(f"{short_name(path)}-done")
    assert overlaps(frontend.boxes()) == []


@pytest.mark.parametrize("path", BLUEPRINTS, ids=lambda path: path.stem)
def test_a_blueprint_is_found_and_opens_as_the_graph_it_was_saved_as(frontend, comfy, path):
    (titles,) = search(frontend, path.stem)
    assert titles[:1] == [path.stem]
    frontend.drop(path)
    saved = json.loads(path.read_text(encoding="utf-8"))
    (node,) = saved["nodes"]
    widgets = {slot["name"] for slot in node["inputs"] if "widget" in slot}
    others = {"seed": 5, "width": 64, "prompt": "a cat", "bias_strength": 0.5}
    values = {name: value for name, value in others.items() if name in widgets}
    changed = frontend.page.evaluate(
        """(values) => {
            for (const widget of app.graph.nodes[0].widgets)
                if (widget.name in values) widget.value = values[widget.name]
            return JSON.stringify(app.graph.serialize())
        }""",
        values,
    )
    frontend.new_graph()
    # As text, which a file is: what is undefined is not in it, and would come from Python as null.
    frontend.page.evaluate("(saved) => app.loadGraphData(JSON.parse(saved))", changed)
    prompt = frontend.page.evaluate("() => app.graphToPrompt().then(({ output }) => output)")
    frontend.shoot(f"blueprint-{path.stem.replace(' ', '-')}")
    expected = blueprint_to_prompt(saved, comfy.object_info(), values)
    assert {key: node["inputs"] for key, node in prompt.items()} == {
        key: node["inputs"] for key, node in expected.items()
    }


def test_apply_refadapter_takes_both_kinds_of_model_and_gives_the_kind_it_took(frontend):
    kinds = frontend.page.evaluate(
        """() => {
            const add = (type) => {
                const node = LiteGraph.createNode(type)
                app.graph.add(node)
                return node
            }
            const tries = []
            for (const loader of ['LoadCogVideoXI2V', 'LoadCogVideoXNative']) {
                const [base, adapter] = [add(loader), add('ApplyRefAdapter')]
                base.connect(0, adapter, 0)
                const went = ['FlexiActSampler', 'ApplyFlexiAct'].map((type) => !!adapter.connect(0, add(type), 0))
                tries.push([adapter.outputs[0].type, ...went])
            }
            return tries
        }"""
    )
    assert kinds == [["COGVIDEOX_I2V", True, False], ["MODEL", False, True]]
    frontend.shoot("both-kinds")


def test_cancel_ends_the_run_and_the_next_one_works(frontend):
    frontend.drop(TRANSFER)
    frontend.set_widgets(SMALL | {"FlexiActSampler": SMALL["FlexiActSampler"] | {"steps": 1000}})
    frontend.press_run()
    assert frontend.wait_until_heard("b_preview_with_metadata", "execution_error") == "b_preview_with_metadata"
    frontend.page.get_by_role("button", name="Cancel current run").click()
    ends = ("execution_interrupted", "execution_success", "execution_error")
    assert frontend.wait_until_heard(*ends, timeout_seconds=60) == "execution_interrupted"
    assert len(frontend.heard("b_preview_with_metadata")) < 1000
    frontend.set_widgets({"FlexiActSampler": {"steps": 2}})
    frontend.press_run()
    assert frontend.wait_until_heard("execution_success", "execution_error") == "execution_success"


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"num_frames": 50}, "num_frames 50: the video autoencoder returns exactly 8k+1 frames. Nearest: 49"),
        ({"off_below": 900, "weighting": "paper"}, "hold_until 800 must lie above off_below 900"),
    ],
    ids=("num_frames", "off_below"),
)
def test_a_wrong_value_shows_its_sentence_on_the_right_node(frontend, values, sentence):
    page = frontend.page
    frontend.drop(TRANSFER)
    frontend.set_widgets(SMALL | {"FlexiActSampler": SMALL["FlexiActSampler"] | values})
    frontend.press_run()
    assert frontend.wait_until_heard("execution_error", "execution_success") == "execution_error"
    (error,) = frontend.heard("execution_error")
    assert error["node_id"] == frontend.node_id("FlexiActSampler")
    assert error["exception_type"] == "flexiact.SettingError"
    assert page.evaluate("() => String(app.lastExecutionError.node_id)") == error["node_id"]
    overlay = page.get_by_test_id("error-overlay")
    overlay.wait_for()
    assert ENGLISH["FlexiActSampler"]["display_name"].partition(" (")[0] in overlay.inner_text()
    page.get_by_test_id("error-overlay-see-errors").click()
    page.wait_for_function("(text) => document.body.innerText.replace(/\\s+/g, ' ').includes(text)", arg=sentence)
    frontend.shoot(f"wrong-{next(iter(values))}")
    # Leaves the panel closed for the tests that follow.
    page.get_by_role("button", name="Toggle properties panel").first.click()


@nodes2_only
def test_help_of_every_node_opens(frontend):
    check_all_help(frontend, ENGLISH, "Inputs")


def test_help_and_names_are_chinese_for_who_reads_chinese(browser, comfy):
    frontend = Frontend(browser, comfy, "chinese", {"Comfy.VueNodes.Enabled": True, "Comfy.Locale": "zh"})
    try:
        check_all_help(frontend, CHINESE, "\u8f93\u5165")
    finally:
        frontend.page.close()


def check_all_help(frontend: Frontend, language: dict[str, dict], chapter: str) -> None:
    """Each node has its name and its help page in a language; `chapter` is what that calls the inputs."""
    for node_id, words in language.items():
        frontend.new_graph()
        frontend.add_node(node_id)
        assert frontend.page.evaluate("() => app.graph.nodes[0].title") == words["display_name"]
        check_help(frontend, words, chapter)


def check_help(frontend: Frontend, words: dict, chapter: str) -> None:
    page = frontend.page
    page.get_by_test_id("info-button").click()
    help_page = page.locator(".node-help-content")
    help_page.get_by_role("heading", name=words["display_name"], exact=True).wait_for()
    help_page.get_by_role("heading", name=chapter, exact=True).wait_for()
    for item in words["inputs"].values():
        assert help_page.get_by_text(item["name"]).count(), item["name"]
    # A page of the pack's own has more to say than the one that the frontend makes of the schema.
    assert help_page.locator("pre, ul").count()
    for picture in help_page.locator("img").all():
        # Pictures are loaded when they come into view.
        picture.scroll_into_view_if_needed()
        assert picture.evaluate("(img) => img.decode().then(() => img.naturalWidth)")
