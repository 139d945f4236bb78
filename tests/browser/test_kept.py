"""What a workflow keeps of our nodes: sizes, values and what is shown, however the nodes come back."""

import pytest
from lyco_testing.comfy import Server
from lyco_testing.nodes import adapters_of
from lyco_testing.page import KEPT, RENDERERS, Canvas, keep, opened

ROWS, TRAIN = "LycoLoadAdapters", "LycoTrainAdapter"
SEEDED = ("LycoCombineAdapters", TRAIN)
"""A subgraph that is made of them has their seeds, which show it: as something linked, or there instead of here."""

LOKR, HALF = "my_lokr.safetensors", "half.safetensors"

VALUES: dict[str, dict[str, object]] = {
    "LycoLoadAdapters": {"adapter_1": LOKR, "adapter_2": HALF, "strength_2": 0.5},
    "LycoLoadAdapter": {"adapter": LOKR, "strength": 0.7},
    "LycoTrainAdapter": {"max_train_steps": 77},
}
"""Values that are not the nodes' own; of the other nodes, an adapter where they take one."""


def nodes(server: Server) -> dict[str, dict[str, object]]:
    """Every node with its values: the rows first, those with a seed last."""
    others = {node: dict.fromkeys(adapters, LOKR) for node, adapters in adapters_of(server).items()}
    return dict(sorted((others | VALUES).items(), key=lambda node: (node[0] in SEEDED, node[0] != ROWS)))


SEEN = """() => app.canvas.graph.nodes.filter((node) => node.comfyClass?.startsWith("Lyco")).map((node) => {
    const drawn = document.querySelector(`[data-node-id="${node.id}"]`);
    const texts = new Set([...(drawn?.querySelectorAll("*") ?? [])].map((element) => element.textContent.trim()));
    const rows = node.widgets.filter(({type}) => !type.startsWith("LYCO"));
    const isShown = (row) => drawn ? texts.has(row.label ?? row.name) : node.isWidgetVisible(row);
    const card = node.widgets.find(({name}) => name.startsWith("lyco_card")).element;
    return {
        lines: [...card.querySelectorAll(".lyco-row:not([hidden]) .lyco-choice")].map((line) => line.innerText),
        kind: node.comfyClass,
        values: rows.map(({value}) => value),
        shown: rows.filter(isShown).map(({name}) => name),
        size: (drawn ? [drawn.offsetWidth, drawn.offsetHeight] : [...node.size]).map(Math.round),
    };
})"""
"""What is before a person's eyes; Vue's nodes have a size of their own in the page."""

CAPTURE = """async () => {
    app.extensionManager.workflow.activeWorkflow.changeTracker.captureCanvasState();
    await new Promise((done) => setTimeout(done, 200));  // what comes within 50 ms of it counts as the same change
}"""
"""As ComfyUI does after each click and key."""


def filled(page: Canvas, nodes: dict[str, dict[str, object]], files: int) -> list[dict]:
    """The page with one node of each kind, at rest; so many of them show a file."""
    page.page.wait_for_function("app.extensionManager.workflow.activeWorkflow")
    page.page.evaluate(CAPTURE)
    for index, (kind, values) in enumerate(nodes.items()):
        page.add(kind, 40 + index % 5 * 400, 60 + index // 5 * 1000, **values)
    page.page.evaluate("app.canvas.ds.scale = 0.5, app.canvas.setDirty(true, true)")
    settled(page, files)
    page.page.evaluate(CAPTURE)
    return page.page.evaluate(SEEN)


def settled(page: Canvas, files: int) -> None:
    """Wait for the cards of so many files, and until nothing moves any more."""
    page.page.wait_for_function("files => document.querySelectorAll('.lyco-file').length === files", arg=files)
    page.page.evaluate(
        f"""async () => {{
            const seen = () => JSON.stringify(({SEEN})());
            for (let last = "", now = seen(), same = 0; same < 5; last = now, now = seen()) {{
                same = now === last ? same + 1 : 0;
                await new Promise((done) => setTimeout(done, 100));
            }}
        }}"""
    )


@pytest.mark.parametrize("renderer", RENDERERS)
def test_opened_reloaded_undone_copied_and_in_a_subgraph(renderer: str, server: Server):
    with opened(server, (1300, 1300), **RENDERERS[renderer]) as page:
        every = nodes(server)
        files = sum(str(value).endswith(".safetensors") for values in every.values() for value in values.values())
        before = filled(page, every, files)
        assert [node["kind"] for node in before] == list(every)
        assert before[0]["lines"] == ["my_lokr", "half", "+ choose a file"]
        assert not any(name.startswith(("adapter", "strength", "on_1")) for name in before[0]["shown"])

        workflow = page.page.evaluate("app.graph.serialize()")
        for _ in range(2):
            page.load(workflow)
            settled(page, files)
            assert page.page.evaluate(SEEN) == before
            again = page.page.evaluate("app.graph.serialize()")
            assert [node["size"] for node in again["nodes"]] == [node["size"] for node in workflow["nodes"]]

        page.page.evaluate(CAPTURE)
        page.page.wait_for_timeout(1500)  # ComfyUI stores what a reload brings back
        page.page.reload()
        page.page.wait_for_function("window.app?.graph?.nodes?.length")
        settled(page, files)
        assert page.page.evaluate(SEEN) == before
        keep(page.page, KEPT, f"kept-{renderer}")

        page.page.evaluate(CAPTURE)
        first = page.page.evaluate("app.graph.nodes.find((node) => node.comfyClass === 'LycoLoadAdapters').id")
        page.choose(first, "adapter_2", "none")
        settled(page, files - 1)
        changed = page.page.evaluate(SEEN)
        assert changed[0]["lines"] == ["my_lokr", "+ choose a file"]
        assert changed[0]["size"][1] < before[0]["size"][1]
        page.page.evaluate(CAPTURE)
        for keys, seen, shown in (("Control+z", before, files), ("Control+y", changed, files - 1)) * 2:
            page.page.keyboard.press(keys)
            settled(page, shown)
            assert page.page.evaluate(SEEN) == seen

        page.page.keyboard.press("Control+z")
        settled(page, files)
        page.page.evaluate("app.canvas.selectItems(app.graph.nodes), app.canvas.copyToClipboard()")
        page.page.evaluate("void app.canvas.pasteFromClipboard()")
        settled(page, 2 * files)
        assert page.page.evaluate(SEEN) == before + before

        page.load(workflow)
        settled(page, files)
        page.page.evaluate("void app.graph.convertToSubgraph(new Set(app.graph.nodes))")
        page.page.evaluate(
            """() => {
                const outside = app.graph.nodes.find((node) => node.subgraph);
                app.canvas.openSubgraph(outside.subgraph, outside);
            }"""
        )
        settled(page, files)
        inside = page.page.evaluate(SEEN)
        assert [node["values"] for node in inside] == [node["values"] for node in before]
        assert {node["kind"] for node in inside[-len(SEEDED) :]} == {*SEEDED}
        assert inside[: -len(SEEDED)] == before[: -len(SEEDED)]
        assert page.errors == []


@pytest.mark.parametrize("renderer", RENDERERS)
def test_rows_follow_their_links(renderer: str, server: Server):
    with opened(server, (1300, 1300), **RENDERERS[renderer]) as page:
        node = page.add("LycoLoadAdapters", 60, 60, adapter_1=LOKR)
        training = page.add("LycoTrainAdapter", 700, 60)
        settled(page, 1)
        alone = page.page.evaluate(SEEN)
        assert alone[0]["lines"] == ["my_lokr", "+ choose a file"]
        page.connect(training, 0, node, "adapter_2")
        settled(page, 1)
        linked = page.page.evaluate(SEEN)
        assert linked[0]["lines"] == ["my_lokr", "⇠ from a link", "+ choose a file"]
        page.load(page.page.evaluate("app.graph.serialize()"))
        settled(page, 1)
        assert page.page.evaluate(SEEN) == linked
        page.page.evaluate(
            """() => {
                const node = app.graph.nodes.find((node) => node.comfyClass === "LycoLoadAdapters");
                node.disconnectInput(node.inputs.findIndex((input) => input.name === "adapter_2"));
            }"""
        )
        settled(page, 1)
        assert page.page.evaluate(SEEN) == alone
        assert page.errors == []
