"""Of several runs that wait, each is taken for what it is, also where one passes another or is taken out."""

import contextlib
import time
from collections.abc import Iterator

import pytest
from lyco_testing.comfy import Server
from lyco_testing.page import Canvas, opened

RECORD = """() => {
    window.lycoShown = [];
    new MutationObserver(() => {
        const node = app.graph.nodes.find((node) => node.comfyClass === "LycoLoadAdapter");
        const chip = document.querySelector(".lyco-match .lyco-chip")?.textContent;
        const now = node.widgets.find(({name}) => name === "strength").value;
        if (chip) lycoShown.push([chip, `strength ${now}`]);
    }).observe(document.body, {subtree: true, childList: true});
}"""
"""Whatever a card shows from now on, and what it should be."""


@contextlib.contextmanager
def held(server: Server) -> Iterator[None]:
    """Whatever is queued waits until this is left."""
    server.post("/prompt", {"prompt": {"1": {"class_type": "ProbeHold", "inputs": {}}}})
    while not server.get("/queue")["queue_running"]:
        time.sleep(0.05)
    try:
        yield
    finally:
        server.post("/interrupt", {})


def waiting(page: Canvas, server: Server, count: int) -> None:
    """Until so many runs are in the server's queue."""
    page.page.wait_for_function(
        """async count => {
            const {queue_running, queue_pending} = await (await fetch(`${location.origin}/queue`)).json();
            return queue_running.length + queue_pending.length === count;
        }""",
        arg=count,
    )


@pytest.fixture
def page(server: Server) -> Iterator[Canvas]:
    """A model with an adapter, and a node that asks for the report."""
    with opened(server) as page:
        model = page.add("UNETLoader", 60, 640, unet_name="wan.safetensors")
        node = page.add("LycoLoadAdapter", 60, 90, adapter="my_lokr.safetensors")
        text = page.add("PreviewAny", 520, 90)
        page.connect(model, 0, node, "model")
        page.connect(node, 2, text, "source")
        page.page.evaluate(RECORD)
        yield page
        shown = page.page.evaluate("lycoShown")
        assert all(chip == now for chip, now in shown), shown
        assert page.errors == []


def queue(page: Canvas, strength: float, at: int = 0) -> None:
    """Choose a strength and press Run."""
    node = page.page.evaluate("app.graph.nodes.find((node) => node.comfyClass === 'LycoLoadAdapter').id")
    page.choose(node, "strength", strength)
    page.take_state()
    page.page.evaluate("at => app.queuePrompt(at)", at)


def shown(page: Canvas) -> list[str]:
    return page.page.locator(".lyco-match .lyco-chip").all_inner_texts()


def test_a_run_that_passes_another(page: Canvas, server: Server):
    with held(server):
        queue(page, 0.91)
        queue(page, 0.92, at=-1)
        waiting(page, server, 3)
    waiting(page, server, 0)
    page.wait("strength 0.92")
    page.page.wait_for_timeout(1000)
    assert shown(page) == ["strength 0.92"]


def test_a_run_that_is_taken_out(page: Canvas, server: Server):
    with held(server):
        for strength in (0.93, 0.94, 0.95):
            queue(page, strength)
        last = max(server.get("/queue")["queue_pending"])
        server.post("/queue", {"delete": [last[1]]})
        waiting(page, server, 3)
    waiting(page, server, 0)
    page.page.wait_for_timeout(1000)
    assert shown(page) == []
    queue(page, 0.95)
    page.wait("strength 0.95")


def test_two_that_wait_in_their_turn(page: Canvas, server: Server):
    with held(server):
        queue(page, 0.96)
        queue(page, 0.97)
        waiting(page, server, 3)
    waiting(page, server, 0)
    page.page.locator(".lyco-match .lyco-chip", has_text="strength 0.97").wait_for()
    page.page.wait_for_timeout(1000)
    assert shown(page) == ["strength 0.97"]
