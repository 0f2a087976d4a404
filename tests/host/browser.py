"""ComfyUI's frontend in a real browser, driven by Playwright."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlparse

from .environment import CACHE
from .server import ComfyServer

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
NO_CHROMIUM = (
    "There is no Chromium on this machine. Install one (Debian, Ubuntu: apt-get install chromium), "
    "or set CHROMIUM to the path of one."
)
NO_ARIAL = (
    "No font on this machine is as wide as Arial, which the frontend writes in, so it cannot be told whether text has "
    "room. Debian, Ubuntu: apt-get install fonts-liberation."
)
SCREEN = {"width": 1600, "height": 900}
SCREENSHOTS = Path(CACHE) / "screenshots"
EVENTS = (
    "execution_start",
    "execution_success",
    "execution_error",
    "execution_interrupted",
    "b_preview_with_metadata",
)


def find_chromium() -> str | None:
    """Path of a Chromium on this machine: CHROMIUM if set, else the first on PATH; None if there is none."""
    given = os.environ.get("CHROMIUM")
    return given or next(filter(None, map(shutil.which, CHROMIUMS)), None)


@contextmanager
def open_browser() -> Iterator:
    """A running Chromium. Needs find_chromium() to find one."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # As root, as in most containers, Chromium starts only without its sandbox. It visits 127.0.0.1 alone.
        arguments = ["--no-sandbox", "--disable-dev-shm-usage", "--autoplay-policy=no-user-gesture-required"]
        # A graphics card that a processor plays is slower than none.
        arguments.append("--disable-gpu")
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=arguments)
        try:
            yield browser
        finally:
            browser.close()


class Frontend:
    """ComfyUI in one browser page, opened with these settings. Everything a method does waits until it is done."""

    def __init__(self, browser, server: ComfyServer, name: str, settings: dict):
        self.server, self.name, self.settings = server, name, settings
        self.page = browser.new_page(viewport=SCREEN, reduced_motion="reduce")
        self.page.set_default_timeout(30_000)
        self.page.route("**/*", self._stay_here)
        self.open()

    def open(self) -> None:
        """Loads the page, and waits until the graph can be worked with."""
        # Without a tutorial, and without the graph or the language of an earlier test.
        fixed = {"Comfy.TutorialCompleted": True, "Comfy.Workflow.Persist": False, "Comfy.Locale": "en"}
        # A processor that draws has little time for anything else.
        fixed |= {"LiteGraph.Canvas.MaximumFps": 8, "Comfy.Minimap.Visible": False}
        self.server.post("/api/settings", fixed | self.settings)
        self.page.goto(self.server.url, wait_until="domcontentloaded")
        self.page.wait_for_function(
            "() => window.app?.isGraphReady && window.app.extensionManager"
            " && window.LiteGraph?.registered_node_types?.FlexiActSampler"
            " && !document.querySelector('#splash-loader')",
            timeout=120_000,
        )
        self.page.evaluate(
            """(kinds) => {
                window.heard = {}
                for (const kind of kinds)
                    app.api.addEventListener(kind, (event) => (heard[kind] ??= []).push(event.detail))
            }""",
            EVENTS,
        )
        self.new_graph()

    def command(self, name: str) -> None:
        """Does what a menu entry does."""
        self.page.evaluate("(name) => app.extensionManager.command.execute(name)", name)

    def browse_templates(self, pack: str, count: int):
        """The cards of a pack's templates in the dialog that shows them, once all `count` of them have come."""
        self.command("Comfy.BrowseTemplates")
        self.page.get_by_role("dialog").get_by_text(pack, exact=True).click()
        cards = self.page.locator("[data-testid^=template-workflow-]")
        cards.first.wait_for()
        while (there := cards.count()) < count:
            # The first 24 come at once, and more when the last of them is come to.
            cards.last.scroll_into_view_if_needed()
            self.page.wait_for_function(
                "(count) => document.querySelectorAll('[data-testid^=template-workflow-]').length > count", arg=there
            )
        return cards

    def new_graph(self) -> None:
        """An empty graph in the tab that is open. Forgets what was heard of earlier runs."""
        self._load({"version": 0.4, "last_node_id": 0, "last_link_id": 0, "nodes": [], "links": []})
        # The frontend keeps pictures by a node's number, and shows them on another graph's node.
        self.page.evaluate(
            """() => {
                for (const kind in heard) delete heard[kind]
                for (const id in app.nodeOutputs) delete app.nodeOutputs[id]
            }"""
        )

    def add_node(self, node_type: str) -> None:
        """Puts a node into the middle of the view and selects it."""
        self.page.evaluate(
            """(type) => {
                const node = LiteGraph.createNode(type)
                node.pos = [400, 200]
                app.graph.add(node)
                app.canvas.selectNode(node)
            }""",
            node_type,
        )

    def drop(self, file: Path) -> None:
        """Drops a workflow file on the canvas."""
        self.page.evaluate(
            """([name, text]) => {
                const data = new DataTransfer()
                data.items.add(new File([text], name, { type: 'application/json' }))
                const at = { bubbles: true, cancelable: true, dataTransfer: data, clientX: 700, clientY: 400 }
                const canvas = document.querySelector('#graph-canvas')
                for (const kind of ['dragenter', 'dragover', 'drop']) canvas.dispatchEvent(new DragEvent(kind, at))
            }""",
            [file.name, file.read_text(encoding="utf-8")],
        )
        self.wait_for_graph(json.loads(file.read_text(encoding="utf-8")))

    def wait_for_graph(self, workflow: dict) -> None:
        """Waits until the graph has the workflow's nodes, drawn, and shows all of it."""
        self.page.wait_for_function("(count) => app.graph.nodes.length === count", arg=len(workflow["nodes"]))
        self.page.wait_for_timeout(300)
        self.command("Comfy.Canvas.FitView")
        self.page.wait_for_timeout(500)

    def set_widgets(self, values: dict[str, dict]) -> None:
        """Sets widgets by node type and name, and loads the graph anew with them, as if it had been saved so."""
        changed = self.page.evaluate(
            """(values) => {
                for (const node of app.graph.nodes)
                    for (const [name, value] of Object.entries(values[node.type] ?? {}))
                        node.widgets.find((widget) => widget.name === name).value = value
                return app.graph.serialize()
            }""",
            values,
        )
        self._load(changed)
        self.page.wait_for_timeout(500)

    def press_run(self) -> None:
        """The Run button. Forgets what was heard of earlier runs."""
        self.page.evaluate("() => { for (const kind in heard) delete heard[kind] }")
        self.page.get_by_test_id("queue-button").click()

    def wait_until_heard(self, *kinds: str, count: int = 1, timeout_seconds: float = 240) -> str:
        """The first of these kinds of events that the server has sent `count` times since press_run()."""
        condition = "([kinds, count]) => kinds.find((kind) => heard[kind]?.length >= count)"
        handle = self.page.wait_for_function(condition, arg=[kinds, count], timeout=timeout_seconds * 1000)
        return handle.json_value()

    def heard(self, kind: str) -> list[dict]:
        """What the server has sent since press_run(), of this kind."""
        return self.page.evaluate("(kind) => heard[kind] ?? []", kind)

    def node_id(self, node_type: str) -> str:
        """The id of the only node of a type."""
        return self.page.evaluate("(type) => String(app.graph.nodes.find((n) => n.type === type).id)", node_type)

    def boxes(self) -> dict[str, list[float]]:
        """Left, top, right and bottom of every node as drawn, title included, in pixels of the graph."""
        return self.page.evaluate(
            """(isVue) => Object.fromEntries(app.graph.nodes.map((node) => {
                if (!isVue) {
                    const [x, y, width, height] = node.boundingRect
                    return [node.title + ' ' + node.id, [x, y, x + width, y + height]]
                }
                const box = document.querySelector(`[data-node-id="${node.id}"]`).getBoundingClientRect()
                const scale = app.canvas.ds.scale
                return [node.title + ' ' + node.id, [box.left, box.top, box.right, box.bottom].map((x) => x / scale)]
            }))""",
            bool(self.settings.get("Comfy.VueNodes.Enabled")),
        )

    def scale(self) -> float:
        """How large the graph is drawn: 1 is its own size. drop() leaves the graph fitted into the view."""
        return self.page.evaluate("() => app.canvas.ds.scale")

    def cut_off(self) -> list[str]:
        """What of the pack's own nodes and of notes has no room, in Nodes 2.0: the node, and the text that is cut.

        Left out is what the frontend shows of a file that is not there: a name with its folders, never shortened.
        """
        return self.page.evaluate(
            """() => [...document.querySelectorAll('[data-node-id]')].flatMap((box) => {
                const node = app.graph.getNodeById(box.dataset.nodeId)
                const isOurs = node.constructor.nodeData?.python_module?.startsWith('custom_nodes')
                if (!isOurs && node.type !== 'MarkdownNote') return []
                return [...box.querySelectorAll('*')].filter((element) => {
                    const { overflowX, opacity } = getComputedStyle(element)
                    // Widths are rounded, each by itself.
                    if (!element.clientWidth || element.scrollWidth <= element.clientWidth + 1) return false
                    const missing = '[aria-invalid=true]'
                    const isMissing = element.closest(missing) ?? element.querySelector(missing)
                    return overflowX !== 'visible' && opacity !== '0' && !isMissing
                }).map((element) => `${node.type} ${node.id}: ${element.value ?? element.innerText}`)
            })"""
        )

    def has_arial(self) -> bool:
        """Whether text in Arial is as wide as it is on most machines. Elsewhere another font takes its place."""
        width = self.page.evaluate(
            """() => {
                const pen = document.createElement('canvas').getContext('2d')
                pen.font = '100px Arial'
                return pen.measureText('i').width
            }"""
        )
        # 22.2 in Arial, 27.8 in DejaVu Sans.
        return abs(width - 22.2) < 0.5

    def show_results(self, picture: str, video: str) -> None:
        """Shows on every node that shows or saves something a file of ComfyUI's input folder, as if it had run."""
        self.page.evaluate(
            """([picture, video]) => {
                const files = { PreviewImage: [picture, false], SaveVideo: [video, true] }
                for (const { id, type } of app.graph.nodes) {
                    if (!files[type]) continue
                    const [filename, isAnimated] = files[type]
                    const images = [{ filename, subfolder: '', type: 'input' }]
                    const output = isAnimated ? { images, animated: [true] } : { images }
                    app.api.dispatchCustomEvent('executed', { node: String(id), display_node: String(id), output })
                }
            }""",
            [picture, video],
        )
        self.page.wait_for_timeout(700)

    def missing_node_types(self) -> list[str]:
        """Types of nodes in the graph that ComfyUI does not know."""
        return self.page.evaluate(
            "() => app.graph.nodes.map((n) => n.type).filter((type) => !LiteGraph.registered_node_types[type])"
        )

    def shoot(self, name: str) -> Path:
        """A picture of the page among the screenshots."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        file = SCREENSHOTS / f"{name}-{self.name}.png"
        self.page.screenshot(path=str(file))
        return file

    def _load(self, workflow: dict) -> None:
        self.page.evaluate(
            """async (workflow) => {
                await app.loadGraphData(workflow, true, true, app.extensionManager.workflow.activeWorkflow)
            }""",
            workflow,
        )

    def _stay_here(self, route) -> None:
        # By host name: the names of some of the frontend's own files look like those of trackers.
        if urlparse(route.request.url).hostname in ("127.0.0.1", None):
            route.continue_()
        else:
            route.abort()
