"""How high a node is: as its content asks, or as a person pulled it, in either renderer."""

import json

import pytest
from lyco_testing.comfy import ROOT, Server
from lyco_testing.nodes import adapters_of
from lyco_testing.page import KEPT, RENDERERS, Canvas, keep, opened
from lyco_testing.page_sizes import GAPS, at_rest
from lyco_testing.tiny_wan import TEXT

LOKR = "my_lokr.safetensors"


def pulled(page: Canvas, node: int, renderer: str, down: int) -> None:
    """Take a node's lower right corner and pull."""
    if renderer == "vue":
        box = page.page.locator(f'.lg-node[data-node-id="{node}"]').bounding_box()
        assert box
        x, y = box["x"] + box["width"] - 3, box["y"] + box["height"] - 3
    else:
        x, y = page.page.evaluate(
            """id => {
                const {pos, size} = app.graph.getNodeById(id), at = app.canvas.canvas.getBoundingClientRect();
                return [pos[0] + size[0] + at.left - 3, pos[1] + size[1] + at.top - 3];
            }""",
            node,
        )
    page.page.mouse.move(x, y)
    page.page.wait_for_timeout(200)
    page.page.mouse.down()
    page.page.mouse.move(x + 10, y + down / 2, steps=4)
    page.page.mouse.move(x + 20, y + down, steps=4)
    page.page.wait_for_timeout(100)
    page.page.mouse.up()
    at_rest(page)


def test_a_training_fits_a_screen(server: Server):
    """With its curve, while it trains, in the classic renderer, at normal zoom; its graph comes at the end."""
    with opened(server, (1280, 720)) as page:
        model = page.add("UNETLoader", 60, 120, unet_name="wan.safetensors")
        items = page.add("ProbeItems", 60, 260, width=TEXT, count=3, captions=3, size=8)
        node = page.add("LycoTrainAdapter", 440, 80, max_train_steps=9000, network_dim=4, output_name="fits")
        page.connect(model, 0, node, "model")
        page.connect(items, 0, node, "latents")
        page.connect(items, 1, node, "positive")
        page.run()
        page.wait("learning rate", 60)
        at_rest(page)
        keep(page.page, KEPT, "training-fits")
        below = page.page.evaluate(
            """id => {
                const {pos, size} = app.graph.getNodeById(id), at = app.canvas.canvas.getBoundingClientRect();
                return window.innerHeight - at.top - size[1] - LiteGraph.NODE_TITLE_HEIGHT;
            }""",
            node,
        )
        assert below > 0
        curve = page.page.locator(".lyco-curve").bounding_box()
        assert curve
        assert curve["y"] + curve["height"] < 720
        assert page.errors == []
        server.post("/interrupt", {})


def test_what_one_renderer_saved_opens_without_gaps_in_the_other(server: Server):
    kinds = adapters_of(server)
    saved: dict[str, dict] = {}
    high: dict[str, dict] = {}
    for renderer, settings in RENDERERS.items():
        with opened(server, (1280, 900), **settings) as page:
            for index, (kind, adapters) in enumerate(kinds.items()):
                page.add(kind, 40 + index * 440, 60, **dict.fromkeys(adapters, LOKR))
            at_rest(page)
            assert all(abs(gap) < 2 for gap in page.page.evaluate(GAPS))
            saved[renderer] = page.page.evaluate("app.graph.serialize()")
            assert all(node["size"][1] == 60 for node in saved[renderer]["nodes"])
            page.clear()
            node = page.add("LycoLoadAdapter", 300, 100, adapter=LOKR)
            at_rest(page)
            pulled(page, node, renderer, 150)
            high[renderer] = page.page.evaluate("app.graph.serialize()")
            assert 100 < page.page.evaluate(GAPS)[0] < 200
            assert page.errors == []
    for renderer, settings in RENDERERS.items():
        with opened(server, (1280, 900), **settings) as page:
            for workflow in saved.values():
                page.load(workflow)
                at_rest(page)
                assert all(abs(gap) < 2 for gap in page.page.evaluate(GAPS)), renderer
                widths = [round(node["size"][0]) for node in page.page.evaluate("app.graph.serialize()")["nodes"]]
                assert widths == [round(node["size"][0]) for node in workflow["nodes"]]
            for workflow in high.values():  # what somebody pulled stays as high
                page.load(workflow)
                at_rest(page)
                assert page.page.evaluate("app.graph.serialize()")["nodes"][0]["size"] == workflow["nodes"][0]["size"]
            for example in sorted((ROOT / "example_workflows").glob("*.json")):  # of any version before
                workflow = json.loads(example.read_text("utf-8"))
                for node in workflow["nodes"]:
                    node["size"] = [node["size"][0], 1300 if node["type"].startswith("Lyco") else node["size"][1]]
                page.load(workflow)
                at_rest(page)
                assert all(abs(gap) < 2 for gap in page.page.evaluate(GAPS)), example.name
            assert page.errors == []


@pytest.mark.parametrize("renderer", RENDERERS)
def test_a_renderer_that_is_changed_leaves_no_gaps(renderer: str, server: Server):
    with opened(server, (1280, 900), **RENDERERS[renderer]) as page:
        page.add("LycoLoadAdapter", 80, 100, adapter=LOKR)
        page.add("LycoLoadAdapters", 520, 100, adapter_1=LOKR)
        other = page.add("KSampler", 960, 100)
        page.page.evaluate("id => app.graph.getNodeById(id).setSize([400, 555])", other)
        at_rest(page)
        for vue in (renderer == "classic", renderer != "classic"):
            page.page.evaluate("vue => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', vue)", vue)
            at_rest(page)
            assert all(abs(gap) < 2 for gap in page.page.evaluate(GAPS))
            *ours, foreign = page.page.evaluate("app.graph.serialize().nodes.map(({size}) => size[1])")
            assert ours == [60, 60]
            assert foreign > 500  # and is left alone
        assert page.errors == []
