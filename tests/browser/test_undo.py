"""Undo takes back what a person did: what a card makes of a node is no part of the workflow."""

import pytest
from lyco_testing.comfy import Server
from lyco_testing.page import RENDERERS, Canvas, opened
from lyco_testing.page_sizes import at_rest

LOKR = "my_lokr.safetensors"

STEPS = "() => app.extensionManager.workflow.activeWorkflow.changeTracker.undoQueue.length"


def did(page: Canvas, *change: object) -> None:
    """A person changes a value: ComfyUI takes the state at once, before any card comes."""
    page.choose(*change)
    page.take_state()
    at_rest(page)


@pytest.mark.parametrize("renderer", RENDERERS)
def test_undo_takes_back_what_a_person_did_and_no_card(renderer: str, server: Server):
    with opened(server, (1280, 720), **RENDERERS[renderer]) as page:
        page.page.wait_for_function("app.extensionManager.workflow.activeWorkflow")
        node = page.add("LycoLoadAdapter", 300, 150, adapter="half.safetensors")
        page.take_state()
        at_rest(page)
        page.take_state()
        begin = page.page.evaluate(STEPS)
        did(page, node, "adapter", LOKR)
        did(page, node, "strength", 0.5)
        page.take_state()
        assert page.page.evaluate(STEPS) == begin + 2
        values = "() => app.graph.nodes[0].widgets.slice(0, 2).map(({value}) => value)"
        for _ in range(2):
            for key, seen in (
                ("Control+z", [LOKR, 1]),
                ("Control+z", ["half.safetensors", 1]),
                ("Control+y", [LOKR, 1]),
                ("Control+y", [LOKR, 0.5]),
            ):
                page.page.keyboard.press(key)
                page.page.wait_for_function(f"seen => String(({values})()) === String(seen)", arg=seen)
                at_rest(page)
                page.take_state()  # the next click would
                assert page.page.evaluate(values) == seen
        assert page.errors == []
