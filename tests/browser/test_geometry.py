"""How high a node is, what of it folds, and that neither is more of a workflow than what a person did."""

import json

import pytest
from lyco_testing.comfy import ROOT, Server
from lyco_testing.nodes import adapters_of, inputs_of, told
from lyco_testing.page import KEPT, RENDERERS, Canvas, keep, opened
from lyco_testing.tiny_wan import TEXT

LOKR = "my_lokr.safetensors"

OURS = 'app.canvas.graph.nodes.filter((node) => node.comfyClass?.startsWith("Lyco"))'

SHOWN = """id => {
    const node = app.graph.getNodeById(id);
    return node.widgets.filter((row) => node.isWidgetVisible(row)).map(({name}) => name);
}"""

GAPS = f"""() => {OURS}.map((node) => {{
    const drawn = document.querySelector(`.lg-node[data-node-id="${{node.id}}"]`);
    if (!drawn) return node.size[1] - node.computeSize()[1];
    const style = drawn.getAttribute("style"), height = drawn.offsetHeight;
    drawn.style.setProperty("--node-height", "0px");
    const needed = drawn.offsetHeight;
    drawn.setAttribute("style", style);
    return height - needed;
}})"""
"""How much higher each node is than what is in it."""

STEPS = "() => app.extensionManager.workflow.activeWorkflow.changeTracker.undoQueue.length"

CAPTURE = "app.extensionManager.workflow.activeWorkflow.changeTracker.captureCanvasState()"
"""As ComfyUI does after each click and key."""


def did(page: Canvas, *change: object) -> None:
    """A person changes a value: ComfyUI takes the state at once, before any card comes."""
    page.choose(*change)
    page.page.evaluate(CAPTURE)
    at_rest(page)


def at_rest(page: Canvas) -> None:
    """Wait until no node moves any more."""
    page.page.evaluate(
        f"""async () => {{
            const seen = () => JSON.stringify([document.querySelectorAll(".lyco-file").length, {OURS}.map((node) => [
                ...node.size, document.querySelector(`[data-node-id="${{node.id}}"]`)?.offsetHeight])]);
            for (let last = "", now = seen(), same = 0; same < 5; last = now, now = seen()) {{
                same = now === last ? same + 1 : 0;
                await new Promise((done) => setTimeout(done, 100));
            }}
        }}"""
    )


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


@pytest.mark.parametrize("renderer", RENDERERS)
def test_undo_takes_back_what_a_person_did_and_no_card(renderer: str, server: Server):
    with opened(server, (1280, 720), **RENDERERS[renderer]) as page:
        page.page.wait_for_function("app.extensionManager.workflow.activeWorkflow")
        node = page.add("LycoLoadAdapter", 300, 150, adapter="half.safetensors")
        page.page.evaluate(CAPTURE)
        at_rest(page)
        page.page.evaluate(CAPTURE)
        begin = page.page.evaluate(STEPS)
        did(page, node, "adapter", LOKR)
        did(page, node, "strength", 0.5)
        page.page.evaluate(CAPTURE)
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
                page.page.evaluate(CAPTURE)  # the next click would
                assert page.page.evaluate(values) == seen
        assert page.errors == []


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
                assert line.inner_text() == f"▸ {len(rare)} more inputs"
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
        page.page.evaluate(CAPTURE)
        line = page.page.locator(".lyco-more-inputs:visible")
        assert line.inner_text() == "▸ 4 more inputs"

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
            ["adapter", "strength", "on_partial_match", "include", "exclude", "block_strengths", "mode", "scale"]
        )
        assert len(before["values"]) == 8
        assert before["values"][-1] == 0.5
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
        page.page.evaluate(CAPTURE)
        page.page.locator(".lyco-more-inputs:visible").click()
        at_rest(page)
        assert seen() == before
        page.page.keyboard.press("Control+z")
        page.page.wait_for_function("app.graph.nodes.some((node) => node.showAdvanced)")
        at_rest(page)
        assert seen() == unfolded
        keep(page.page, KEPT, "unfolded")
        assert page.errors == []


def test_a_training_fits_a_screen(server: Server):
    """With its curve, in the classic renderer, at normal zoom."""
    with opened(server, (1280, 720)) as page:
        model = page.add("UNETLoader", 60, 120, unet_name="wan.safetensors")
        items = page.add("ProbeItems", 60, 260, width=TEXT, count=3, captions=3, size=8)
        node = page.add("LycoTrainAdapter", 440, 80, max_train_steps=4, network_dim=4, output_name="fits")
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
