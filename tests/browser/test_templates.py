"""The templates, opened as a person opens them, in a window of 1280 x 720."""

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
            page.open(server.address)  # the list of templates opens anew, where it was left before
            page.page.get_by_role("button", name="Templates").first.click()
            page.page.get_by_role("dialog").get_by_text("comfyui-lyco", exact=True).first.click()
            page.page.get_by_role("dialog").get_by_text(path.stem, exact=True).first.click()
            page.page.wait_for_function(
                "named => app.graph.nodes[0]?.widgets?.[0]?.value.includes(named)", arg=path.stem
            )
            note = page.page.locator(".comfy-markdown:visible, .widget-markdown:visible").first
            note.wait_for()
            assert page.page.evaluate("app.canvas.ds.scale") > READABLE, path.stem
            cut = note.evaluate("note => note.scrollHeight - note.clientHeight")
            assert cut <= 1, path.stem
            assert note.locator("code").count() == 0, path.stem  # blue on blue in Vue's notes
            keep(page.page, KEPT, f"template-{path.stem}-{renderer}")
        assert page.errors == []


def test_thumbnails_fill_the_frame():
    """Which is a square."""
    assert {Image.open(path.with_suffix(".jpg")).size for path in GRAPHS} == {(640, 640)}
