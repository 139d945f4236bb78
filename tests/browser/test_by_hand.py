"""With mouse and keyboard alone, as a person does: search a node, drag it, choose a file, run, stop."""

import json

import pytest
from lyco_testing.comfy import ROOT, Server
from lyco_testing.nodes import adapters_of, told
from lyco_testing.page import KEPT, RENDERERS, Canvas, keep, opened


def searched(page: Canvas, title: str, x: int, y: int) -> int:
    """Double-click the empty canvas, type the node's name, press Enter; its id."""
    field = page.search_field(x, y)
    field.press_sequentially(title)
    page.page.wait_for_timeout(500)  # the list is filtered a moment after the last letter
    field.press("Enter")
    page.page.wait_for_function("app.graph.nodes.length")
    return page.page.evaluate("app.graph.nodes[0].id")


def box(page: Canvas, node: int) -> list[float]:
    """Left, top, width and height of a node on the page."""
    return page.page.evaluate(
        """id => {
            const node = app.graph.getNodeById(id), [x, y] = app.canvas.ds.offset, canvas = app.canvas.canvas;
            const at = canvas.getBoundingClientRect();
            return [node.pos[0] + x + at.left, node.pos[1] + y + at.top, ...node.size];
        }""",
        node,
    )


def dragged(page: Canvas, x: float, y: float) -> None:
    """Take what is at (x, y) and pull it by (250, 80)."""
    page.page.mouse.move(x, y)
    page.page.wait_for_timeout(100)
    page.page.mouse.down()
    page.page.wait_for_timeout(100)
    page.page.mouse.move(x + 60, y + 20, steps=4)
    page.page.mouse.move(x + 250, y + 80, steps=8)
    page.page.wait_for_timeout(100)
    page.page.mouse.up()
    page.page.wait_for_timeout(400)


def test_every_node_is_found_by_its_name(server: Server):
    with opened(server, (1500, 1100)) as page:
        page.page.wait_for_timeout(500)
        for kind, info in told(server.get("/object_info")).items():
            page.clear()
            searched(page, info["display_name"].partition("→")[0], 700, 500)
            assert page.page.evaluate("app.graph.nodes.map((node) => node.type)") == [kind]
            page.page.mouse.move(480, 240, steps=3)  # a new node sticks to the mouse until a click puts it down
            page.page.mouse.click(500, 250, delay=40)
        assert page.errors == []


@pytest.mark.parametrize("renderer", RENDERERS)
def test_the_card_goes_along_with_its_node(renderer: str, server: Server):
    with opened(server, (1500, 1100), **RENDERERS[renderer]) as page:
        page.page.wait_for_timeout(500)
        for kind, adapters in adapters_of(server).items():
            page.clear()
            node = page.add(kind, 200, 200, **({adapters[0]: "my_lokr.safetensors"} if len(adapters) > 1 else {}))
            page.page.wait_for_timeout(600)
            card = page.page.locator(".lyco-root", has=page.page.locator(".lyco-card")).first
            before, at = card.bounding_box(), box(page, node)
            dragged(page, at[0] + at[2] * 0.8, at[1] - 15)
            after, now = card.bounding_box(), box(page, node)
            keep(page.page, KEPT / "nodes", f"{kind}-{renderer}")
            assert now[0] - at[0] == pytest.approx(250, abs=20), kind
            if before and after and before["height"]:  # a card without content lies nowhere
                assert after["x"] - before["x"] == pytest.approx(now[0] - at[0], abs=2), kind
                assert after["y"] - before["y"] == pytest.approx(now[1] - at[1], abs=2), kind
        assert page.errors == []


@pytest.mark.parametrize("renderer", RENDERERS)
def test_a_file_is_chosen_from_the_list(renderer: str, server: Server):
    with opened(server, **RENDERERS[renderer]) as page:
        node = page.add("LycoInspectAdapter", 200, 200, adapter="my_lokr.safetensors")
        page.wait("ukiyoe style")
        if renderer == "vue":
            page.page.locator(f'[data-node-id="{node}"]').get_by_role("combobox").first.click()
        else:
            for _ in range(5):  # a canvas that is still busy misses a click
                at = box(page, node)
                down = page.page.evaluate("id => app.graph.getNodeById(id).widgets[0].last_y", node)
                page.page.mouse.click(at[0] + at[2] / 2, at[1] + down + 10, delay=40)
                page.page.wait_for_timeout(600)
                if page.page.locator(".litecontextmenu").count():
                    break
        page.page.get_by_text("half.safetensors", exact=True).last.click()
        page.page.wait_for_function("!document.querySelector('.lyco-file').innerText.includes('ukiyoe')")
        assert "LoKr" in page.page.locator(".lyco-file").inner_text()
        assert page.errors == []


def test_an_example_runs_and_says_what_matched(server: Server):
    with opened(server) as page:
        page.load(json.loads((ROOT / "example_workflows" / "Inspect an adapter.json").read_text("utf-8")))
        page.wait("ukiyoe style")
        page.page.get_by_test_id("queue-button").click()
        page.wait("20 of 20 modules matched")
        keep(page.page, KEPT, "example")
        assert page.errors == []
