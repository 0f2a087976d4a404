"""The pictures on the pack's nodes, in both renderers: when the action speaks, and the clip that shows it.

Screenshots lie in .cache/screenshots.
"""

from __future__ import annotations

import pytest
from host.browser import Frontend
from host.models import NAME
from host.server import HostError

from .conftest import SHOWN, UNSHOWN
from .test_frontend import CHINESE

SMALL_WORLD = "small world (built in)"
LINE = ".flexiact-weighting p"


def show_node(frontend: Frontend, node_type: str) -> None:
    """A new node in the middle of the view, unzoomed."""
    frontend.add_node(node_type)
    frontend.page.evaluate(
        "() => { Object.assign(app.canvas.ds, { scale: 1, offset: [0, -150] }); app.canvas.setDirty(true, true) }"
    )
    frontend.page.wait_for_timeout(500)


def widgets(frontend: Frontend, node_type: str) -> dict:
    """Values of a node's widgets by name."""
    return frontend.page.evaluate(
        """(type) => {
            const { widgets } = app.graph.nodes.find((node) => node.type === type)
            return Object.fromEntries(widgets.map((widget) => [widget.name, widget.value]))
        }""",
        node_type,
    )


def wait_for_line(frontend: Frontend, text: str) -> None:
    """Waits until the line below the curve says this."""
    frontend.page.locator(LINE).filter(has_text=text).wait_for()


def dots(frontend: Frontend) -> int:
    """How many steps are drawn."""
    return frontend.page.locator(".flexiact-weighting .dots").get_attribute("d").count("M")


def click_widget(frontend: Frontend, name: str, part: float) -> None:
    """Clicks a widget that the classic renderer draws on the only node; part 0 is its left end, 1 its right."""
    at = frontend.page.evaluate(
        """([name, part]) => {
            const { pos, size, widgets } = app.graph.nodes[0]
            const { offset, scale } = app.canvas.ds
            const { x, y } = app.canvas.canvas.getBoundingClientRect()
            const widget = widgets.find((widget) => widget.name === name)
            return [
                (pos[0] + 20 + part * (size[0] - 40) + offset[0]) * scale + x,
                (pos[1] + widget.y + 10 + offset[1]) * scale + y,
            ]
        }""",
        [name, part],
    )
    frontend.page.mouse.click(*at)


def press_more(frontend: Frontend, name: str) -> None:
    """The button that makes a number one step larger."""
    if not frontend.settings["Comfy.VueNodes.Enabled"]:
        click_widget(frontend, name, part=1)
        return
    frontend.page.get_by_test_id("node-widget").filter(has_text=name).get_by_test_id("increment").click()


def choose(frontend: Frontend, name: str, value: str) -> None:
    """Picks a file of actions from a list, where its own name comes first."""
    folder, _, file = value.rpartition("/")
    shown = f"{file.removesuffix('.safetensors')} - {folder}"
    page = frontend.page
    if not frontend.settings["Comfy.VueNodes.Enabled"]:
        click_widget(frontend, name, part=0.5)
        page.locator(".litecontextmenu").get_by_text(shown, exact=True).click()
        return
    page.get_by_test_id("node-widget").filter(has_text=name).get_by_role("combobox").click()
    page.get_by_role("option", name=shown, exact=True).click()


def drag(frontend: Frontend, setting: str, right_px: int, down_px: int) -> None:
    """Drags the handle of a setting in the picture."""
    box = frontend.page.locator(f".flexiact-weighting [data-setting={setting}]").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    mouse = frontend.page.mouse
    mouse.move(x, y)
    mouse.down()
    mouse.move(x + right_px / 2, y + down_px / 2)
    mouse.move(x + right_px, y + down_px)
    mouse.up()
    # What is dragged next is drawn anew once the server has answered.
    frontend.page.wait_for_timeout(500)


def test_the_picture_shows_the_steps_on_which_the_action_has_added_weight(frontend):
    show_node(frontend, "FlexiActSampler")
    wait_for_line(frontend, "Added weight on steps 1 to 15 of 50.")
    assert dots(frontend) == 50
    frontend.shoot("weighting")


def test_the_picture_follows_a_widget_that_is_edited(frontend):
    show_node(frontend, "FlexiActSampler")
    wait_for_line(frontend, "of 50.")
    for steps in (1, 2, 3):
        press_more(frontend, "steps")
        wait_for_line(frontend, f"of {steps}.")
        assert widgets(frontend, "FlexiActSampler")["steps"] == dots(frontend) == steps


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (
            {"steps": 10, "hold_until": 500, "off_below": 200, "weighting": "paper"},
            "Added weight on steps 1 to 8 of 10.",
        ),
        ({"steps": 10, "bias_strength": -2.5, "scheduler": "DDIM"}, "Added weight on steps 1 to 3 of 10."),
        ({"steps": 12, "bias_strength": 0}, "No added weight on any of the 12 steps."),
        ({"steps": 12, "bias_strength": 2, "weighting": "release"}, "Added weight on steps 1 to 4 of 12."),
        (
            {"off_below": 900, "weighting": "paper"},
            "hold_until 800 must lie above off_below 900: the bias is held down to the first",
        ),
    ],
    ids=("longer", "negative", "none", "release", "wrong"),
)
def test_the_picture_shows_what_a_loaded_workflow_says(frontend, values, line, request):
    show_node(frontend, "FlexiActSampler")
    frontend.set_widgets({"FlexiActSampler": values})
    wait_for_line(frontend, line)
    frontend.shoot(f"weighting-{request.node.callspec.id.split('-')[-1]}")
    assert frontend.page.locator(".flexiact-weighting .curve").count() == (0 if "must lie" in line else 1)


def test_dragging_in_the_picture_sets_the_widgets(frontend):
    show_node(frontend, "FlexiActSampler")
    wait_for_line(frontend, "1 to 15 of 50.")
    drag(frontend, "off_below", 60, 0)
    moved = widgets(frontend, "FlexiActSampler")
    assert 400 < moved["off_below"] < 650 and moved["hold_until"] == 800
    wait_for_line(frontend, f"Added weight on steps 1 to {-(-(999 - moved['off_below']) // 20)} of 50.")
    # Past each other they would make no curve.
    drag(frontend, "hold_until", 300, 0)
    assert widgets(frontend, "FlexiActSampler")["hold_until"] == moved["off_below"] + 1
    drag(frontend, "bias_strength", 0, 30)
    assert 0.2 < widgets(frontend, "FlexiActSampler")["bias_strength"] < 0.9
    frontend.shoot("weighting-dragged")
    frontend.page.keyboard.press("Control+z")
    frontend.page.wait_for_function(
        "() => app.graph.nodes[0].widgets.find((w) => w.name === 'bias_strength').value === 1"
    )


def test_apply_action_which_knows_no_steps_has_the_curve_alone_and_its_handles(frontend):
    show_node(frontend, "ApplyFlexiAct")
    frontend.page.locator(".flexiact-weighting .curve").wait_for()
    assert frontend.page.locator(".flexiact-weighting .dots[d*=M]").count() == 0
    assert frontend.page.locator(LINE).inner_text() == ""
    drag(frontend, "off_below", 60, 0)
    moved = widgets(frontend, "ApplyFlexiAct")
    assert 300 < moved["off_below"] < 650 and moved["hold_until"] == 800
    drag(frontend, "bias_strength", 0, 30)
    assert 0.2 < widgets(frontend, "ApplyFlexiAct")["bias_strength"] < 0.9
    frontend.shoot("weighting-native")


@pytest.mark.parametrize(("setting", "curves"), [("bias_strength", 0), ("steps", 1)])
def test_what_a_link_decides_is_said_and_not_drawn(frontend, setting, curves):
    show_node(frontend, "FlexiActSampler")
    frontend.page.evaluate(
        """(setting) => {
            const sampler = app.graph.nodes[0]
            const origin = LiteGraph.createNode(setting === 'steps' ? 'PrimitiveInt' : 'PrimitiveFloat')
            app.graph.add(origin)
            origin.pos = [60, 400]
            origin.connect(0, sampler, sampler.inputs.findIndex((input) => input.name === setting))
        }""",
        setting,
    )
    wait_for_line(frontend, f"Decided by a link: {setting}.")
    assert frontend.page.locator(".flexiact-weighting .curve").count() == curves
    assert frontend.page.locator(".flexiact-weighting .dots[d='']").count() == curves
    assert frontend.page.locator(f".flexiact-weighting [data-setting={setting}]").count() == 0
    frontend.shoot(f"weighting-linked-{setting}")


def test_the_pictures_are_not_saved_and_every_value_is(frontend):
    frontend.add_node("LoadFAEEmbedding")
    frontend.add_node("FlexiActSampler")
    frontend.set_widgets(
        {
            "FlexiActSampler": {"steps": 7, "off_below": 650, "weighting": "release", "seed": 11, "prompt": "a cat"},
            "LoadFAEEmbedding": {"fae_file": SHOWN, "strength": 0.5},
        }
    )
    frontend.page.locator("video[src*='/flexiact/preview']").wait_for()
    wait_for_line(frontend, "of 7.")
    saved = frontend.page.evaluate("() => app.graph.serialize()")
    prompt = frontend.page.evaluate("() => app.graphToPrompt().then(({ output }) => output)")
    pictures = {"weighting_curve", "action_preview"}
    for node in saved["nodes"]:
        values = widgets(frontend, node["type"])
        assert pictures & set(values)
        kept = {name: value for name, value in values.items() if name not in pictures}
        assert node["widgets_values"] == list(kept.values())
        assert not pictures & set(prompt[str(node["id"])]["inputs"])
        node["kept"] = kept
    frontend.new_graph()
    frontend.page.evaluate("(saved) => app.loadGraphData(saved)", saved)
    wait_for_line(frontend, "of 7.")
    for node in saved["nodes"]:
        assert node["kept"].items() <= widgets(frontend, node["type"]).items()


@pytest.mark.parametrize("palette", ["light", "dark"])
def test_the_picture_takes_the_theme_of_the_graph(frontend, comfy, palette):
    comfy.post("/api/settings", {"Comfy.ColorPalette": palette})
    try:
        frontend.open()
        show_node(frontend, "FlexiActSampler")
        wait_for_line(frontend, "of 50.")
        frontend.shoot(f"weighting-{palette}")
        text, ground = frontend.page.locator(".flexiact-weighting").evaluate(
            """(element) => ['color', 'backgroundColor'].map((name) => {
                const parts = getComputedStyle(element)[name].match(/\\d+/g).slice(0, 3).map(Number)
                return Math.max(...parts)
            })"""
        )
        assert text < ground - 100 if palette == "light" else text > ground + 100
    finally:
        comfy.post("/api/settings", {"Comfy.ColorPalette": "dark"})


def test_a_reader_of_chinese_reads_chinese(browser, comfy):
    frontend = Frontend(browser, comfy, "chinese", {"Comfy.VueNodes.Enabled": True, "Comfy.Locale": "zh"})
    try:
        show_node(frontend, "FlexiActSampler")
        wait_for_line(frontend, "\u7b2c 1 \u81f3 15 \u6b65")
        hold_until = CHINESE["FlexiActSampler"]["inputs"]["hold_until"]["name"]
        assert frontend.page.locator(".flexiact-weighting").get_by_text(f"{hold_until} 800").count() == 1
        frontend.shoot("weighting")
    finally:
        frontend.page.close()


def test_the_clip_of_the_chosen_action_plays_and_goes_with_it(frontend):
    page = frontend.page
    video = page.locator("video[src*='/flexiact/preview']")
    show_node(frontend, "LoadFAEEmbedding")
    video.wait_for()
    choose(frontend, "fae_file", UNSHOWN)
    video.wait_for(state="detached")
    bare = page.evaluate("() => app.graph.nodes[0].size[1]")
    frontend.shoot("preview-gone")
    choose(frontend, "fae_file", SHOWN)
    video.wait_for()
    page.wait_for_function("() => document.querySelector('video[src*=\"/flexiact/preview\"]').currentTime > 0")
    state = "(video) => [video.muted, video.loop, video.controls, video.paused, video.videoWidth, video.videoHeight]"
    assert video.evaluate(state) == [True, True, False, False, 256, 144]
    frontend.shoot("preview")
    assert page.evaluate("() => app.graph.nodes[0].size[1]") >= bare + 80
    choose(frontend, "fae_file", UNSHOWN)
    video.wait_for(state="detached")
    assert page.evaluate("() => app.graph.nodes[0].size[1]") == bare


def test_a_node_that_is_gone_before_its_clip_is_there_shows_nothing(frontend):
    for _ in range(3):
        frontend.add_node("LoadFAEEmbedding")
        frontend.page.wait_for_timeout(5)
        frontend.new_graph()
    frontend.page.wait_for_timeout(2000)
    assert frontend.page.locator("video").count() == 0


@pytest.mark.parametrize(
    ("question", "status", "sentence"),
    [
        ("weighting?steps=ten&bias_strength=1&hold_until=800&off_below=700&weighting=paper&scheduler=DPM", 400,
         "steps 'ten': a whole number is needed"),
        ("preview?file=fae/nothing.safetensors", 404, "is not in"),
        ("preview?file=..%2F..%2F..%2Fserver.log", 404, "is not in"),
    ],
)  # fmt: skip
def test_comfyui_answers_a_wrong_question_with_its_sentence(comfy, question, status, sentence):
    with pytest.raises(HostError, match=rf": {status}\n.*{sentence}"):
        comfy.get(f"/api/flexiact/{question}")


def load_with_base(frontend: Frontend, base: str) -> None:
    """A loader of this base and a sampler, with an adapter between them, as they come from the menu."""
    show_node(frontend, "FlexiActSampler")
    frontend.page.evaluate(
        """(base) => {
            const [loader, adapter] = ['LoadCogVideoXI2V', 'ApplyRefAdapter'].map((type) => LiteGraph.createNode(type))
            const sampler = app.graph.nodes[0]
            for (const node of [loader, adapter]) app.graph.add(node)
            loader.pos = [-20, 200]
            adapter.pos = [-20, 600]
            loader.connect(0, adapter, 0)
            adapter.connect(0, sampler, 0)
            const model = loader.widgets.find((widget) => widget.name === 'model')
            model.value = base
            model.callback?.(base)
        }""",
        base,
    )


def test_a_new_sampler_takes_everything_from_its_base_and_draws_the_bases_own_curve(frontend):
    load_with_base(frontend, SMALL_WORLD)
    names = ("width", "height", "num_frames", "steps", "cfg")
    values = widgets(frontend, "FlexiActSampler")
    assert [values[name] for name in names] == [0] * 5 and values["weighting"] == "auto"
    # Steps at 999, 959, ..., 39: the fifteenth lies at 439 and is held, the eighteenth at 319 fades, 299 is silent.
    wait_for_line(frontend, "Added weight on steps 1 to 18 of 25.")
    assert frontend.page.locator(".flexiact-weighting").get_by_text("hold_until 400").count() == 1
    frontend.shoot("weighting-auto")
    frontend.page.evaluate(
        "(base) => { const model = app.graph.nodes.find((n) => n.type === 'LoadCogVideoXI2V').widgets[0];"
        " model.value = base; model.callback(base) }",
        NAME,
    )
    wait_for_line(frontend, "1 to 15 of 50.")


def test_dragging_the_bases_own_curve_makes_it_the_users(frontend):
    load_with_base(frontend, SMALL_WORLD)
    wait_for_line(frontend, "1 to 18 of 25.")
    drag(frontend, "bias_strength", 0, 30)
    # The strength alone goes on being counted in the base's own.
    assert widgets(frontend, "FlexiActSampler")["weighting"] == "auto"
    drag(frontend, "off_below", 40, 0)
    moved = widgets(frontend, "FlexiActSampler")
    assert moved["weighting"] == "paper" and moved["hold_until"] == 400 and 0 < moved["off_below"] < 290


@pytest.mark.parametrize(("presses", "frames"), [(1, 9), (2, 17), (7, 57)])
def test_the_number_of_frames_goes_in_steps_that_a_video_can_have(frontend, presses, frames):
    show_node(frontend, "FlexiActSampler")
    for _ in range(presses):
        press_more(frontend, "num_frames")
    assert widgets(frontend, "FlexiActSampler")["num_frames"] == frames


@pytest.mark.parametrize(("typed", "kept"), [(49, 49), (50, 49), (1, 1), (0, 0), (5, 9)])
def test_a_number_of_frames_that_is_typed_becomes_the_nearest_that_a_video_can_have(frontend, typed, kept):
    show_node(frontend, "FlexiActSampler")
    frontend.page.evaluate(
        """(typed) => {
            const widget = app.graph.nodes[0].widgets.find((widget) => widget.name === 'num_frames')
            widget.value = typed
            widget.callback(typed, app.canvas, app.graph.nodes[0])
        }""",
        typed,
    )
    assert widgets(frontend, "FlexiActSampler")["num_frames"] == kept
