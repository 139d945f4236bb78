"""What went wrong stands on the card of the node where it did: what to do, with buttons that do it, and why."""

import pytest
from lyco_testing.comfy import Server
from lyco_testing.messages import LANGUAGES, catalogue
from lyco_testing.page import KEPT, RENDERERS, Canvas, keep, opened
from lyco_testing.tables import random
from lyco_testing.tiny_wan import TEXT
from playwright.sync_api import Locator
from safetensors.torch import save_file

WINDOW = (1280, 720)

KNOWN_AGAIN = r"""async ({advice, messages}) => {
    const entry = performance.getEntriesByType("resource").find(({ name }) => name.endsWith("/lyco.js"));
    const { inWords } = await import(entry.name.replace("lyco.js", "messages.mjs"));
    const put = (text) => text.replace(/\{(\d+)\}/g, (_, index) => `value${index}`);
    const like = (one, other) => one.toLowerCase() === other.toLowerCase();
    const missed = [];
    for (const [text, words] of Object.entries(messages)) {
        const { todo, why } = await inWords(`a.safetensors: blocks.0.q: ${put(text)}`);
        const advises = words.ja.includes("\n");
        const english = text.split("; ");
        const cut = advises ? [english.at(-1), english.slice(0, -1).join("; ")] : ["", text];
        const [first, last] = words[LANGUAGE] ? ["", ...words[LANGUAGE].split("\n")].slice(-2) : cut;
        const right = like(todo, put(first)) && why.endsWith(put(last)) && why.includes("blocks.0.q");
        if (!right) missed.push([text, todo, why]);
    }
    for (const [text, words] of Object.entries(advice)) {
        const { todo, why } = await inWords(`a.safetensors: it is wrong; ${put(text)}`);
        const right = like(todo, put(words[LANGUAGE] ?? text)) && why === "a.safetensors: it is wrong";
        if (!right) missed.push([text, todo, why]);
    }
    return missed;
}"""
"""Messages of every template, behind a file and a module or before advice, that are not said as they should."""

WARN, EXCLUDE = "Apply what fits", "Leave these out"


def half(page: Canvas, strength: float) -> int:
    """A model, and an adapter of which it lacks the half."""
    model = page.add("UNETLoader", 560, 400, unet_name="wan.safetensors")
    node = page.add("LycoLoadAdapter", 90, 110, adapter="half.safetensors", strength=strength)
    text = page.add("PreviewAny", 560, 110)
    page.connect(model, 0, node, "model")
    page.connect(node, 2, text, "source")
    return node


def failure(page: Canvas) -> Locator:
    return page.page.locator(".lyco-failure:visible")


def red(page: Canvas) -> Locator:
    return page.page.locator(".lyco-failure:visible:not(.lyco-done)")


def button(page: Canvas, text: str) -> Locator:
    return red(page).get_by_role("button", name=text, exact=True)


def value(page: Canvas, node: int, name: str) -> object:
    found = "([id, name]) => app.graph.getNodeById(id).widgets.find((widget) => widget.name === name).value"
    return page.page.evaluate(found, [node, name])


def undo(page: Canvas) -> None:
    page.page.evaluate("app.extensionManager.workflow.activeWorkflow.changeTracker.undo()")


@pytest.mark.parametrize("renderer", RENDERERS)
def test_a_click_does_what_the_card_advises_and_can_be_undone(renderer: str, server: Server):
    with opened(server, WINDOW, **RENDERERS[renderer]) as page:
        node = half(page, 0.31 if renderer == "vue" else 0.32)
        page.run()
        button(page, EXCLUDE).wait_for()
        todo, *_, why = failure(page).inner_text().splitlines()
        assert todo.startswith("Set on_partial_match to warn to apply the rest, or leave these out by this line")
        assert todo.endswith(r"exclude: blocks\.9\..*")
        assert why.startswith(
            "half.safetensors: 10 of 20 modules are not in the model (lora_unet_blocks_9_cross_attn_k"
        )
        keep(page.page, KEPT, f"failure-buttons-{renderer}")
        failed = page.saved()

        page.choose(node, "exclude", "patch_embedding")
        page.take_state()
        page.page.locator(".lyco-done").wait_for()  # it is of other values than the node has now
        undo(page)
        button(page, EXCLUDE).click()
        page.page.locator(".lyco-done").wait_for()
        assert value(page, node, "exclude") == r"blocks\.9\..*"
        undo(page)
        button(page, WARN).click()
        page.page.locator(".lyco-done").wait_for()
        assert value(page, node, "exclude") == ""
        assert value(page, node, "on_partial_match") == "warn"
        page.run()
        page.wait("10 of 20 modules matched")
        assert failure(page).count() == 0

        page.open(server.address)  # after a reload: as the workflow is
        page.load(failed)
        button(page, WARN).wait_for()
        assert page.page.locator(".lyco-match").count() == 0
        failed["nodes"][1]["widgets_values"][1] = 0.33
        page.load(failed)
        page.wait("Wan 2.1/2.2")
        page.page.wait_for_timeout(1000)
        assert failure(page).count() == 0  # with this strength it never ran
        assert page.errors == []


@pytest.mark.parametrize("renderer", RENDERERS)
def test_a_line_is_added_to_those_that_are_there(renderer: str, server: Server):
    with opened(server, WINDOW, **RENDERERS[renderer]) as page:
        node = half(page, 0.41 if renderer == "vue" else 0.42)
        page.choose(node, "exclude", r"blocks\.0\.ffn.*")
        page.run()
        button(page, EXCLUDE).click()
        page.page.locator(".lyco-done").wait_for()
        assert value(page, node, "exclude") == "blocks\\.0\\.ffn.*\nblocks\\.9\\..*"


@pytest.mark.parametrize("renderer", RENDERERS)
def test_in_a_subgraph_and_in_another_workflow_and_back(renderer: str, server: Server):
    with opened(server, WINDOW, **RENDERERS[renderer]) as page:
        node = half(page, 0.51 if renderer == "vue" else 0.52)
        page.page.evaluate("id => void app.graph.convertToSubgraph(new Set([app.graph.getNodeById(id)]))", node)
        page.page.evaluate(
            """() => window.comfyAPI.api.api.addEventListener("execution_error", () => (window.lycoFailed = true))"""
        )
        page.run()
        page.page.wait_for_function("window.lycoFailed")
        inner = "(app.rootGraph ?? app.graph).nodes.find((node) => node.subgraph)"
        page.page.evaluate(f"app.canvas.openSubgraph({inner}.subgraph, {inner})")
        button(page, WARN).wait_for()
        keep(page.page, KEPT, f"failure-subgraph-{renderer}")
        page.page.evaluate("app.canvas.setGraph(app.rootGraph ?? app.graph)")
        workflow = page.saved()
        page.load({"nodes": [], "links": [], "groups": [], "config": {}, "extra": {}, "version": 0.4})
        assert failure(page).count() == 0
        page.load(workflow)
        page.page.evaluate(f"app.canvas.openSubgraph({inner}.subgraph, {inner})")
        button(page, WARN).click()
        page.page.locator(".lyco-done").wait_for()
        page.page.evaluate("app.canvas.setGraph(app.rootGraph ?? app.graph)")
        page.run()
        page.page.wait_for_timeout(1500)
        page.page.evaluate(f"app.canvas.openSubgraph({inner}.subgraph, {inner})")
        page.wait("10 of 20 modules matched")
        assert failure(page).count() == 0
        assert page.errors == []


def test_other_nodes_advise_their_own_inputs(server: Server):
    names = [f"lora_unet_blocks_0_{kind}_attn_{x}" for kind in ("self", "cross") for x in "qkvo"]
    oft = {f"{name}.oft_blocks": random(4, 16, 16) / 9 for name in names}
    save_file(oft, server.base / "models" / "loras" / "oft.safetensors")
    with opened(server, WINDOW) as page:
        node = page.add("LycoConvertAdapter", 90, 110, adapter="oft.safetensors", to="musubi")
        page.run()
        button(page, "to: comfyui").wait_for()
        button(page, "to: diffusers").click()
        page.page.locator(".lyco-done").wait_for()
        assert value(page, node, "to") == "diffusers"


@pytest.mark.parametrize("renderer", RENDERERS)
def test_an_error_of_a_training_stands_on_its_card(renderer: str, server: Server):
    with opened(server, WINDOW, Locale="ja", **RENDERERS[renderer]) as page:
        model = page.add("UNETLoader", 560, 110, unet_name="wan.safetensors")
        data = page.add("ProbeItems", 560, 300, width=TEXT, count=3, captions=3, size=8)
        node = page.add("LycoTrainAdapter", 90, 110, min_timestep=900, max_timestep=100)
        for target, source, output in (("model", model, 0), ("latents", data, 0), ("positive", data, 1)):
            page.connect(source, output, node, target)
        page.run()
        red(page).wait_for()
        assert failure(page).inner_text() == "min_timestep が 900 です。max_timestep (100) より小さくしてください"
        keep(page.page, KEPT, f"failure-training-{renderer}")
        assert page.errors == []


@pytest.mark.parametrize(
    ("language", "todo", "why"),
    [
        (
            "ja",
            "保存またはダウンロードし直してください",
            "cut.safetensors: 途中で切れています: テンソルは ",
        ),
        ("zh", "请重新保存或下载", "cut.safetensors: 被截断：张量到第 "),
    ],
)
def test_in_the_persons_language(language: str, todo: str, why: str, server: Server):
    with opened(server, WINDOW, Locale=language) as page:
        page.add("LycoInspectAdapter", 90, 110, adapter="cut.safetensors")
        page.run()
        red(page).wait_for()
        first, *_, last = failure(page).inner_text().splitlines()
        assert first == todo
        assert last.startswith(why)
        keep(page.page, KEPT, f"failure-{language}")
        assert page.errors == []


def test_without_its_words_it_is_told_as_the_server_says_it(server: Server):
    with opened(server, WINDOW) as page:
        page.page.route("**/messages.mjs", lambda route: route.abort())
        page.add("LycoInspectAdapter", 90, 110, adapter="cut.safetensors")
        page.run()
        red(page).wait_for()
        assert failure(page).inner_text().startswith("cut.safetensors: is cut off")


@pytest.mark.parametrize("language", ["en", *LANGUAGES])
def test_every_message_is_known_again(language: str, server: Server):
    """Also behind the names of a file and a module, and before the advice of a node."""
    told = catalogue()
    with opened(server, Locale=language) as page:
        unknown = page.page.evaluate(
            KNOWN_AGAIN.replace("LANGUAGE", repr(language)),
            told,
        )
        assert unknown == []
        assert page.errors == []
