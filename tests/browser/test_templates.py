"""The templates, as they open in a window of 1280 x 720."""

import json

import pytest
from lyco_testing.comfy import ROOT, Server
from lyco_testing.page import KEPT, RENDERERS, keep, opened
from PIL import Image

GRAPHS = sorted((ROOT / "example_workflows").glob("*.json"))
READABLE = 0.6
"""Of ComfyUI's scale: below, the classic renderer draws no text. A template opens at what shows all of it."""


@pytest.mark.parametrize("renderer", RENDERERS)
def test_their_notes_can_be_read_at_once(renderer: str, server: Server):
    with opened(server, (1280, 720), **RENDERERS[renderer]) as page:
        for path in GRAPHS:
            page.page.evaluate(
                "graph => app.loadGraphData(graph, true, true, null, {openSource: 'template'})",
                json.loads(path.read_text("utf-8")),
            )
            note = page.page.locator(".comfy-markdown:visible, .widget-markdown:visible").filter(has_text=path.stem)
            note.wait_for()
            page.page.wait_for_timeout(500)  # until the view has moved
            assert page.page.evaluate("app.canvas.ds.scale") > READABLE, path.stem
            assert note.evaluate("note => note.scrollHeight - note.clientHeight") <= 1, path.stem
            assert note.locator("code").count() == 0, path.stem  # blue on blue in Vue's notes
            keep(page.page, KEPT, f"template-{path.stem}-{renderer}")
        assert page.errors == []


def test_thumbnails_fill_the_frame():
    """Which is a square."""
    for path in GRAPHS:
        with Image.open(path.with_suffix(".jpg")) as picture:
            assert picture.size == (640, 640), path.stem
