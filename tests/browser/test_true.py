"""A card shows what is true of a run as it would be now, or nothing: in subgraphs, after changes and failures."""

import time
from typing import Any

import pytest
from lyco_testing.comfy import Server
from lyco_testing.page import KEPT, RENDERERS, Canvas, keep, opened
from lyco_testing.tiny_wan import wan_adapter
from safetensors.torch import save_file

LOKR, HALF = "my_lokr.safetensors", "half.safetensors"
WHOLE, PARTLY = "20 of 20 modules matched", "10 of 20 modules matched"

SUBGRAPH = "app.rootGraph.nodes.find((node) => node.subgraph)"


def loaded(page: Canvas, adapter: str = LOKR, **values: object) -> int:
    """A model with an adapter, and a node that asks for the report."""
    model = page.add("UNETLoader", 60, 640, unet_name="wan.safetensors")
    node = page.add("LycoLoadAdapter", 60, 90, adapter=adapter, on_partial_match="warn", **values)
    text = page.add("PreviewAny", 520, 90)
    page.connect(model, 0, node, "model")
    page.connect(node, 2, text, "source")
    return node


def shown(page: Canvas, text: str | None) -> None:
    """Until the page's cards say this of what matched, and nothing else; None is nothing at all, for a while."""
    if text is None:
        page.page.wait_for_function("document.querySelectorAll('.lyco-match').length === 0")
        page.page.wait_for_timeout(800)
    script = "() => [...document.querySelectorAll('.lyco-matched')].map((title) => title.firstChild.textContent)"
    page.page.wait_for_function(f"text => ({script})().join() === (text ?? '')", arg=text)


def in_subgraph(page: Canvas, node: int, *promoted: str) -> None:
    """Convert a node to a subgraph, give some of its inputs on to the outside, and look inside."""
    page.page.evaluate(
        f"""([id, promoted]) => {{
            app.graph.convertToSubgraph(new Set([app.graph.getNodeById(id)]));
            const outside = {SUBGRAPH}, inner = outside.subgraph.nodes[0];
            for (const name of promoted) {{
                const input = inner.inputs.find((input) => input.name === name);
                outside.subgraph.addInput(name, String(input.type)).connect(input, inner);
            }}
            app.canvas.openSubgraph(outside.subgraph, outside);
        }}""",
        [node, promoted],
    )
    page.take_state()


def promoted(page: Canvas, name: str, value: object) -> None:
    """Change a value on the subgraph's own node, as a person does from outside."""
    page.page.evaluate(
        f"([name, value]) => lycoChoose({SUBGRAPH}, name, value)",
        [name, value],
    )
    page.take_state()


def inside_again(page: Canvas, server: Server, workflow: dict[str, Any]) -> None:
    """A new page with the same workflow, in the subgraph."""
    page.open(server.address)
    page.load(workflow)
    page.page.evaluate(f"app.canvas.openSubgraph({SUBGRAPH}.subgraph, {SUBGRAPH})")


@pytest.mark.parametrize("renderer", RENDERERS)
def test_a_match_survives_converting_to_a_subgraph_and_back(renderer: str, server: Server):
    with opened(server, **RENDERERS[renderer]) as page:
        node = loaded(page, strength=0.71 if renderer == "vue" else 0.72)
        page.run()
        shown(page, WHOLE)
        in_subgraph(page, node)
        shown(page, WHOLE)
        workflow = page.saved()
        inside_again(page, server, workflow)
        shown(page, WHOLE)
        keep(page.page, KEPT, f"true-subgraph-{renderer}")
        assert page.errors == []


@pytest.mark.parametrize("renderer", RENDERERS)
def test_with_its_input_promoted_a_card_goes_by_the_value_outside(renderer: str, server: Server):
    with opened(server, **RENDERERS[renderer]) as page:
        node = loaded(page, strength=0.73 if renderer == "vue" else 0.74)
        page.wait("ukiyoe style")
        in_subgraph(page, node, "adapter")
        page.run()
        shown(page, WHOLE)
        page.wait("ukiyoe style")
        promoted(page, "adapter", HALF)
        shown(page, None)  # this one has not run
        page.page.get_by_text("ukiyoe style").wait_for(state="detached")
        page.run()
        shown(page, PARTLY)
        promoted(page, "adapter", LOKR)
        shown(page, WHOLE)  # this one has
        page.run()  # of which ComfyUI has the result yet
        page.page.wait_for_timeout(1000)
        shown(page, WHOLE)

        workflow = page.saved()
        inside_again(page, server, workflow)
        shown(page, WHOLE)
        page.wait("ukiyoe style")
        promoted(page, "adapter", HALF)
        shown(page, PARTLY)
        promoted(page, "adapter", "hostile.safetensors")
        shown(page, None)
        keep(page.page, KEPT, f"true-promoted-{renderer}")
        assert page.errors == []


def test_a_new_page_shows_what_a_cached_run_gave(server: Server):
    with opened(server) as page:
        node = loaded(page, strength=0.75)
        in_subgraph(page, node, "adapter")
        page.run()
        shown(page, WHOLE)
        workflow = page.saved()
        page.page.route("**/history**", lambda route: route.abort())  # a server that keeps none
        inside_again(page, server, workflow)
        shown(page, None)
        page.page.unroute("**/history**")
        page.run()
        shown(page, WHOLE)
        assert page.errors == []


def test_other_links_are_another_run(server: Server):
    with opened(server) as page:
        node = loaded(page, strength=0.76)
        page.run()
        shown(page, WHOLE)
        other = page.add("UNETLoader", 60, 800, unet_name="z_image_turbo_bf16.safetensors")
        first = page.page.evaluate("app.graph.nodes.find((node) => node.type === 'UNETLoader').id")
        page.connect(other, 0, node, "model")
        shown(page, None)
        page.connect(first, 0, node, "model")
        shown(page, WHOLE)
        # What leads through a bypassed node, a reroute or a primitive is the same run.
        between = page.add("LycoMergeAdapter", 600, 640, adapter=HALF)
        page.connect(first, 0, between, "model")
        page.connect(between, 0, node, "model")
        shown(page, None)
        page.page.evaluate("id => void (app.graph.getNodeById(id).mode = 4)", between)
        page.take_state()
        shown(page, WHOLE)
        reroute = page.add("Reroute", 400, 640)
        page.page.evaluate(
            """([from, reroute, to]) => {
                const [one, two, three] = [from, reroute, to].map((id) => app.graph.getNodeById(id));
                one.connect(0, two, 0);
                two.connect(0, three, three.inputs.findIndex((input) => input.name === "model"));
            }""",
            [first, reroute, node],
        )
        shown(page, WHOLE)
        page.page.evaluate("id => void (app.graph.getNodeById(id).mode = 2)", first)
        page.take_state()
        shown(page, None)
        assert page.errors == []


def test_nothing_stands_after_a_failed_run_or_a_reload_of_it(server: Server):
    loras = server.base / "models" / "loras"
    name = "replaced-by-a-broken-one.safetensors"
    save_file(wan_adapter(), loras / name)
    with opened(server) as page:
        loaded(page, name, strength=0.77)
        page.run()
        shown(page, WHOLE)
        whole = (loras / name).read_bytes()
        (loras / name).write_bytes(whole[:-100])
        page.run()
        shown(page, None)
        page.wait("is cut off")
        workflow = page.saved()
        page.open(server.address)
        page.load(workflow)
        page.wait("is cut off")
        shown(page, None)
        assert page.errors == []


def test_what_was_changed_while_it_ran_is_not_what_ran(server: Server):
    with opened(server) as page:
        node = loaded(page, HALF, strength=0.78)
        page.page.evaluate("app.queuePrompt(0)")
        page.choose(node, "adapter", LOKR)
        page.take_state()
        time.sleep(1)
        shown(page, None)
        page.choose(node, "adapter", HALF)
        page.take_state()
        shown(page, PARTLY)
        assert page.errors == []


def test_no_widget_of_others_is_asked_what_it_would_send(server: Server):
    """That of ComfyUI's webcam takes a picture."""
    with opened(server) as page:
        loaded(page, HALF, strength=0.79)
        page.run()
        shown(page, PARTLY)
        workflow = page.saved()
        page.open(server.address)
        page.page.evaluate(
            """() => {
                const kind = LiteGraph.registered_node_types.UNETLoader, made = kind.prototype.onNodeCreated;
                kind.prototype.onNodeCreated = function () {
                    made?.apply(this);
                    for (const widget of this.widgets) widget.serializeValue = () => (window.lycoAsked = true);
                };
            }"""
        )
        page.load(workflow)
        shown(page, PARTLY)
        assert not page.page.evaluate("window.lycoAsked")
        assert page.errors == []
