"""The ready subgraphs: found by search, one node on the canvas, and run."""

import pytest
from lyco_testing.comfy import ROOT, Server
from lyco_testing.page import KEPT, RENDERERS, keep, opened

BLUEPRINTS = sorted(path.stem for path in (ROOT / "subgraphs").glob("*.json"))


@pytest.mark.parametrize("renderer", RENDERERS)
def test_a_blueprint_is_found_and_runs(server: Server, renderer: str):
    with opened(server, (1280, 720), **RENDERERS[renderer]) as page:
        if page.version < (1, 45):
            pytest.skip("this frontend knows no blueprints of packs")
        for name in BLUEPRINTS:
            page.clear()
            field = page.search_field(700, 400)
            field.press_sequentially(name)
            page.page.get_by_text(name.partition("a ")[2]).first.wait_for()
            page.page.wait_for_timeout(500)
            field.press("Enter")
            page.page.wait_for_function("app.graph.nodes.length")
            page.page.mouse.move(300, 150, steps=4)
            page.page.mouse.click(300, 150, delay=40)
            page.page.wait_for_timeout(500)
            assert page.page.evaluate("app.graph.nodes.map((node) => node.title)") == [name]
            keep(page.page, KEPT, f"blueprint-{name.partition(' ')[0]}-{renderer}")
            if name.startswith("Load"):
                blueprint = page.page.evaluate("app.graph.nodes[0].id")
                page.choose(blueprint, "adapter", "my_lokr.safetensors")
                page.connect(page.add("UNETLoader", 700, 400, unet_name="wan.safetensors"), 0, blueprint, "model")
                page.connect(blueprint, 2, page.add("PreviewAny", 700, 100), "source")
                page.run()
                page.page.wait_for_function(
                    """Object.values(app.nodeOutputs).some(({text}) => text?.[0]?.includes("20 of 20 modules"))"""
                )
        assert page.errors == []
