"""The classic renderer folds the inputs that a schema calls advanced, and all of them are kept and sent."""

from lyco_testing.comfy import Server
from lyco_testing.nodes import inputs_of, told
from lyco_testing.page import KEPT, keep, opened
from lyco_testing.page_sizes import GAPS, at_rest

LOKR = "my_lokr.safetensors"

SHOWN = """id => {
    const node = app.graph.getNodeById(id);
    return node.widgets.filter((row) => node.isWidgetVisible(row)).map(({name}) => name);
}"""


def test_rare_inputs_fold(server: Server):
    """In the classic renderer; Vue's nodes do that by themselves."""
    with opened(server) as page:
        for kind, info in told(server.get("/object_info")).items():
            node = page.add(kind)
            at_rest(page)
            rare = [name for name, options in inputs_of(info).items() if options.get("advanced")]
            line = page.page.locator(".lyco-more-inputs:visible")
            shown = page.page.evaluate(SHOWN, node)
            assert not set(rare) & set(shown), kind
            assert line.count() == bool(rare), kind
            if rare:
                assert line.inner_text() == f"▸ {len(rare)} more input{'s' * (len(rare) > 1)}"
                place = line.bounding_box()
                line.click()
                at_rest(page)
                assert line.bounding_box() == place, kind  # under the hand that clicked it
                assert set(rare) <= set(page.page.evaluate(SHOWN, node)), kind
                assert line.inner_text() == "▾ fewer inputs"
                line.click()
                assert page.page.evaluate(SHOWN, node) == shown, kind
            at_rest(page)
            assert page.page.evaluate(GAPS) == [0], kind
            # Not cleared: a graph that counts anew gives a node the values of another kind that had its number.
            page.page.evaluate("id => app.graph.remove(app.graph.getNodeById(id))", node)
        assert page.errors == []


def test_what_is_set_or_linked_does_not_fold_and_all_is_sent(server: Server):
    with opened(server) as page:
        page.page.wait_for_function("app.extensionManager.workflow.activeWorkflow")
        node = page.add("LycoLoadAdapter", 500, 100, adapter=LOKR)
        text = page.add("PrimitiveStringMultiline", 80, 100)
        page.choose(node, "scale", 0.5)
        page.connect(text, 0, node, "exclude")
        at_rest(page)
        page.take_state()
        line = page.page.locator(".lyco-more-inputs:visible")
        assert line.inner_text() == "▸ 5 more inputs"

        def seen() -> dict:
            return page.page.evaluate(
                """async () => {
                    const node = app.graph.nodes.find((node) => node.comfyClass === "LycoLoadAdapter");
                    const {inputs} = (await app.graphToPrompt()).output[node.id];
                    const slot = node.inputs.findIndex(({name}) => name === "exclude"), at = node.getInputPos(slot);
                    const rows = node.widgets.filter(({type}) => !type.startsWith("LYCO"));
                    return {
                        inputs: Object.keys(inputs).toSorted(),
                        values: node.serialize().widgets_values,
                        rows: rows.filter(({name}) => name === "exclude" || name === "scale").map(({y}) => y),
                        slot: at[1] - node.pos[1],
                        folded: !node.showAdvanced,
                        height: node.size[1],
                    };
                }"""
            )

        before = seen()
        assert before["inputs"] == sorted(
            [
                "adapter",
                "strength",
                "on_partial_match",
                "include",
                "exclude",
                "block_strengths",
                "mode",
                "scale",
                "strength_schedule",
            ]
        )
        assert len(before["values"]) == 9
        assert before["values"][-2:] == [0.5, ""]
        assert before["slot"] == before["rows"][0] + 10  # the link is drawn to its row
        page.load(page.page.evaluate("app.graph.serialize()"))
        at_rest(page)
        assert seen() == before
        page.page.locator(".lyco-more-inputs:visible").click()
        at_rest(page)
        unfolded = seen()
        assert not unfolded["folded"]
        assert unfolded["height"] > before["height"] + 100
        assert (unfolded["inputs"], unfolded["values"]) == (before["inputs"], before["values"])
        page.load(page.page.evaluate("app.graph.serialize()"))
        at_rest(page)
        assert seen() == unfolded
        page.take_state()
        page.page.locator(".lyco-more-inputs:visible").click()
        at_rest(page)
        assert seen() == before
        page.page.keyboard.press("Control+z")
        page.page.wait_for_function("app.graph.nodes.some((node) => node.showAdvanced)")
        at_rest(page)
        assert seen() == unfolded
        keep(page.page, KEPT, "unfolded")
        assert page.errors == []


def test_who_unfolds_without_a_word_is_heard(server: Server):
    """The button of Vue's nodes only sets `showAdvanced`."""
    with opened(server) as page:
        node = page.add("LycoLoadAdapter", adapter=LOKR)
        page.wait("more inputs")
        page.page.evaluate("id => { app.graph.getNodeById(id).showAdvanced = true; app.canvas.setDirty(true) }", node)
        page.wait("▾ fewer inputs")
        assert page.errors == []
