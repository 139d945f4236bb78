"""A real page of a running ComfyUI in headless Chromium, as a person has it before them."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Error, Locator, Page, sync_playwright

from lyco_testing.comfy import ROOT, Server

KEPT = ROOT / "build" / "screenshots"
"""Where the pictures of a run are kept, to be looked at."""

SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.Workflow.ShowMissingModelsWarning": False,
    "Comfy.Locale": "en",
    "Comfy.VueNodes.Enabled": False,
    "Comfy.ColorPalette": "dark",
    "Comfy.Graph.CanvasMenu": False,
    "Comfy.Minimap.Visible": False,
    "Comfy.RightSidePanel.IsOpen": False,
}
"""What every page begins with."""

RENDERERS: dict[str, dict[str, object]] = {"classic": {}, "vue": {"VueNodes_Enabled": True}}
"""How ComfyUI draws nodes -> the settings that ask for it."""

NEW = (1, 45)
"""The first frontend that draws all of a node with Vue."""

READY = "window.app?.graph && window.LiteGraph?.registered_node_types?.LycoLoadAdapter && window.app.canvas"


def find_chromium() -> str | None:
    """Debian's Chromium, or another browser of its kind."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


class Canvas:
    """A page with an empty graph."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.errors: list[str] = []
        """Exceptions that nobody caught, and errors on the console that name the pack."""
        self.version: tuple[int, ...] = ()
        """Of the frontend."""
        page.on("pageerror", self._failed)
        page.on("console", lambda message: self._heard(message.type, message.text))

    def _failed(self, error: Error) -> None:
        # Frontends of 2025 have such errors of their own, on every page.
        if self.version >= NEW or "lyco" in (error.stack or "").lower():
            self.errors.append(str(error))

    def _heard(self, kind: str, text: str) -> None:
        if kind == "error" and "lyco" in text.lower():
            self.errors.append(text)

    def open(self, address: str) -> None:
        """Load the page and wait until its nodes are there."""
        self.page.goto(address)
        self.page.wait_for_function(READY)
        version: str = self.page.evaluate("window.__COMFYUI_FRONTEND_VERSION__")
        self.version = tuple(map(int, version.split(".")))
        self.page.evaluate("app.canvas.ds.scale = 1, app.canvas.ds.offset = [0, 0]")

    def clear(self) -> None:
        """An empty graph, of which no node gets the id of one that was there: ComfyUI keeps widgets' values by ids."""
        self.page.evaluate(
            """() => {
                const last = app.graph.last_node_id;
                app.graph.clear();
                app.graph.last_node_id = last;
                app.canvas.ds.scale = 1, app.canvas.ds.offset = [0, 0];
            }"""
        )

    def add(self, kind: str, x: int = 120, y: int = 120, **values: object) -> int:
        """Add a node, choose values for its widgets as a person does, and return its id."""
        return self.page.evaluate(
            """([kind, position, values]) => {
                const node = LiteGraph.createNode(kind);
                node.pos = position;
                app.graph.add(node);
                for (const [name, value] of Object.entries(values)) lycoChoose(node, name, value);
                return node.id;
            }""",
            [kind, [x, y], values],
        )

    def choose(self, node: int, name: str, value: object) -> None:
        """Choose a widget's value."""
        self.page.evaluate(
            "([id, name, value]) => lycoChoose(app.graph.getNodeById(id), name, value)", [node, name, value]
        )

    def connect(self, source: int, output: int, target: int, name: str) -> None:
        """Draw a link."""
        self.page.evaluate(
            """([source, output, target, name]) => {
                const to = app.graph.getNodeById(target);
                app.graph.getNodeById(source).connect(output, to, to.inputs.findIndex((input) => input.name === name));
            }""",
            [source, output, target, name],
        )

    def load(self, workflow: dict[str, Any]) -> None:
        """Open a workflow in the graph form."""
        self.page.evaluate("workflow => app.loadGraphData(workflow)", workflow)

    def take_state(self) -> None:
        """Have ComfyUI take what can be undone, as it does after each click and key."""
        self.page.evaluate("app.extensionManager.workflow.activeWorkflow?.changeTracker.captureCanvasState()")

    def saved(self) -> dict[str, Any]:
        """The workflow as a file has it: without what is undefined, of which an answer of the page makes null."""
        return json.loads(self.page.evaluate("JSON.stringify((app.rootGraph ?? app.graph).serialize())"))

    def search_field(self, x: int, y: int) -> Locator:
        """Double-click the empty canvas; the field of the search that opens."""
        field = self.page.locator("input:focus")
        for _ in range(5):  # a page that is still busy takes two clicks for two clicks
            self.page.mouse.dblclick(x, y, delay=40)
            self.page.wait_for_timeout(600)
            if field.count():
                break
        return field

    def run(self) -> None:
        """Press Run."""
        self.page.evaluate("app.queuePrompt(0)")

    def wait(self, text: str, seconds: float = 30) -> None:
        """Until the page shows a text."""
        self.page.get_by_text(text).first.wait_for(timeout=seconds * 1000)


BEGIN = """
window.lycoChoose = (node, name, value) => {
    const widget = node.widgets.find((widget) => widget.name === name);
    widget.value = value;
    widget.callback?.(value, app.canvas, node);
};
// Else the page begins with ComfyUI's own example, and complains about the models that it lacks.
const empty = {nodes: [], links: [], groups: [], config: {}, extra: {}, version: 0.4};
localStorage.setItem("workflow", JSON.stringify(empty));
"""
"""Runs in every page before its own scripts."""


@contextlib.contextmanager
def opened(server: Server, size: tuple[int, int] = (1500, 1000), **settings: object) -> Iterator[Canvas]:
    """A page of the server with these settings; it must raise no error."""
    named = {f"Comfy.{name.replace('_', '.')}": value for name, value in settings.items()}
    server.post("/settings", SETTINGS | named)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": size[0], "height": size[1]})
        page.add_init_script(BEGIN)
        canvas = Canvas(page)
        try:
            canvas.open(server.address)
            if settings.get("VueNodes_Enabled") and canvas.version < NEW:
                pytest.skip(f"frontend {'.'.join(map(str, canvas.version))} does not draw nodes with Vue in full")
            canvas.clear()
            yield canvas
        finally:
            browser.close()


def keep(page: Page, folder: Path, name: str) -> Path:
    """Take a picture of the page as an artefact."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.png"
    page.screenshot(path=path)
    return path
