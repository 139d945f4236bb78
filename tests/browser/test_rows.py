"""The stack loader: a line a file, with mouse and keyboard, whose values are those of the node's own widgets."""

from collections.abc import Sequence

import pytest
from lyco_testing.comfy import Server
from lyco_testing.page import KEPT, RENDERERS, Canvas, keep, opened
from playwright.sync_api import Locator

LOKR, HALF, CUT = "my_lokr.safetensors", "half.safetensors", "cut.safetensors"

VALUES = """() => Object.fromEntries(app.graph.nodes.find((node) => node.comfyClass === "LycoLoadAdapters").widgets.map(
    ({name, value}) => [name, value],
))"""
CAPTURE = """async () => {
    app.extensionManager.workflow.activeWorkflow?.changeTracker.captureCanvasState();
    await new Promise((done) => setTimeout(done, 300));
}"""


def values(page: Canvas, *names: str) -> Sequence[object]:
    """What the widgets hold."""
    held = page.page.evaluate(VALUES)
    return [held[name] for name in names]


def becomes(page: Canvas, **expected: object) -> None:
    """Until the widgets hold these values."""
    page.page.wait_for_function(
        f"expected => Object.entries(expected).every(([name, value]) => ({VALUES})()[name] === value)", arg=expected
    )


def line(page: Canvas, number: int) -> Locator:
    """The row of this number, of those that are shown."""
    return page.page.locator(".lyco-row:visible").nth(number - 1)


def lines(page: Canvas) -> list[str]:
    """The files of the rows that are shown."""
    return [row.inner_text() for row in page.page.locator(".lyco-choice:visible").all()]


def picked(page: Canvas, entry: str) -> None:
    """An entry of the menu that is open."""
    page.page.locator(".litecontextmenu .litemenu-entry", has_text=entry).first.click()


def run_with_rows(page: Canvas, *files: str, **values: object) -> int:
    """A model with these files, and a node that asks for the report."""
    model = page.add("UNETLoader", 60, 640, unet_name="wan.safetensors")
    rows = {f"adapter_{number}": file for number, file in enumerate(files, 1)}
    node = page.add("LycoLoadAdapters", 420, 90, **rows, **values)
    text = page.add("PreviewAny", 900, 90)
    page.connect(model, 0, node, "model")
    page.connect(node, 2, text, "source")
    page.run()
    return node


@pytest.mark.parametrize("renderer", RENDERERS)
def test_a_row_is_chosen_filtered_typed_dragged_switched_and_undone(renderer: str, server: Server):
    with opened(server, **RENDERERS[renderer]) as page:
        page.page.wait_for_function("app.extensionManager.workflow.activeWorkflow")
        page.add("LycoLoadAdapters", 300, 200)
        page.page.evaluate(CAPTURE)
        assert lines(page) == ["+ choose a file"]

        line(page, 1).locator(".lyco-choice").click()
        page.page.locator(".comfy-context-menu-filter").fill(HALF)
        assert page.page.locator(".litemenu-entry:visible").all_inner_texts() == [HALF]
        page.page.keyboard.press("Enter")
        becomes(page, adapter_1=HALF)
        page.page.wait_for_timeout(300)
        assert lines(page) == ["half", "+ choose a file"]
        for name in ("on or off: 1. half", "what it is: 1. half", "more: 1. half", "more: 2. choose a file"):
            page.page.get_by_role("switch" if "off" in name else "button", name=name, exact=True).wait_for()
        line(page, 2).locator(".lyco-choice").click()
        picked(page, LOKR)
        becomes(page, adapter_2=LOKR)
        page.page.wait_for_timeout(300)

        strength = line(page, 1).get_by_label("strength")
        strength.click()
        page.page.keyboard.type("0,7")
        page.page.keyboard.press("Enter")
        becomes(page, strength_1=0.7)
        page.page.wait_for_timeout(300)
        at = line(page, 2).get_by_label("strength").bounding_box()
        assert at
        page.page.mouse.move(at["x"] + 10, at["y"] + 8)
        page.page.mouse.down()
        page.page.mouse.move(at["x"] - 40, at["y"] + 8, steps=5)
        page.page.mouse.up()
        becomes(page, strength_2=0.5)
        page.page.wait_for_timeout(300)
        line(page, 2).get_by_role("switch").click()
        becomes(page, on_2=False)
        page.page.wait_for_timeout(300)
        keep(page.page, KEPT, f"rows-{renderer}")

        # Undo takes back one step after the other, and redo brings them again.
        page.page.mouse.click(20, 500)
        before = [
            {"on_2": True, "strength_2": 0.5},
            {"strength_2": 1, "strength_1": 0.7},
            {"strength_1": 1, "adapter_2": LOKR},
            {"adapter_2": "none", "adapter_1": HALF},
            {"adapter_1": "none"},
        ]
        for state in before:
            page.page.keyboard.press("Control+z")
            becomes(page, **state)
            page.page.wait_for_timeout(400)
        assert lines(page) == ["+ choose a file"]
        for state in reversed(before[:-1]):
            page.page.keyboard.press("Control+y")
            becomes(page, **state)
            page.page.wait_for_timeout(400)
        page.page.keyboard.press("Control+y")
        becomes(page, on_2=False)
        page.page.wait_for_timeout(400)
        assert lines(page) == ["half", "my_lokr", "+ choose a file"]

        # The API form has every input, as it has without the extension.
        (sent,) = page.page.evaluate("app.graphToPrompt().then(({output}) => Object.values(output))")
        rows = [f"{name}_{number}" for number in range(1, 13) for name in ("adapter", "strength", "on")]
        assert set(sent["inputs"]) == {*rows, "on_partial_match", "mode", "clip_strength"}
        assert [sent["inputs"][name] for name in rows[:6]] == [HALF, 0.7, True, LOKR, 0.5, False]
        assert page.errors == []


@pytest.mark.parametrize("renderer", RENDERERS)
def test_the_match_stands_in_the_row_of_its_file(renderer: str, server: Server):
    with opened(server, **RENDERERS[renderer]) as page:
        strength = 0.21 if renderer == "vue" else 0.22
        run_with_rows(page, HALF, LOKR, HALF, strength_1=strength, on_partial_match="warn", on_3=False)
        line(page, 1).locator(".lyco-partly.lyco-badge").wait_for()
        page.wait("10 of 20 modules matched")  # what was left out is shown unasked
        assert line(page, 2).locator(".lyco-match:visible").count() == 0
        assert line(page, 2).locator(".lyco-badge").get_attribute("title") == "20 of 20 modules matched"
        line(page, 2).locator(".lyco-unfold").click()
        line(page, 2).get_by_text("20 of 20 modules matched").wait_for()
        assert page.page.locator(".lyco-match").count() == 2  # none of the row that was off
        keep(page.page, KEPT, f"rows-match-{renderer}")

        workflow = page.page.evaluate("app.graph.serialize()")
        page.open(server.address)
        page.load(workflow)
        page.wait("10 of 20 modules matched")
        page.choose(next(n["id"] for n in workflow["nodes"] if n["type"] == "LycoLoadAdapters"), "adapter_1", LOKR)
        page.page.wait_for_function("!document.querySelector('.lyco-match')")
        assert page.errors == []


@pytest.mark.parametrize("renderer", RENDERERS)
def test_a_linked_input_says_so_and_has_its_socket(renderer: str, server: Server):
    with opened(server, (1500, 1300), **RENDERERS[renderer]) as page:
        node = page.add("LycoLoadAdapters", 700, 90, adapter_1=LOKR)
        number = page.add("PrimitiveFloat", 60, 90, value=0.3)
        training = page.add("LycoTrainAdapter", 60, 300)
        page.connect(number, 0, node, "strength_1")
        page.connect(training, 0, node, "adapter_2")
        page.page.wait_for_function("document.querySelectorAll('.lyco-row:not([hidden])').length === 3")
        field = line(page, 1).get_by_label("strength")
        assert field.is_disabled()
        assert field.input_value() == "0.30"
        assert lines(page) == ["my_lokr", "⇠ from a link", "+ choose a file"]
        page.choose(number, "value", 0.4)
        page.page.evaluate(CAPTURE)
        page.page.wait_for_function("document.querySelector('.lyco-strength input').value === '0.40'")
        keep(page.page, KEPT, f"rows-linked-{renderer}")
        # Another input of a row is shown where somebody wants to draw a link to it.
        line(page, 1).locator(".lyco-more").click()
        picked(page, "Show inputs to link")
        shown = "id => app.graph.getNodeById(id).widgets.filter((widget) => !widget.hidden).map(({name}) => name)"
        assert {"adapter_1", "on_1"} <= set(page.page.evaluate(shown, node))
        page.page.evaluate(
            """id => {
                const node = app.graph.getNodeById(id);
                node.disconnectInput(node.inputs.findIndex((input) => input.name === "strength_1"));
                node.disconnectInput(node.inputs.findIndex((input) => input.name === "adapter_2"));
            }""",
            node,
        )
        page.page.wait_for_function("document.querySelectorAll('.lyco-row:not([hidden])').length === 2")
        assert line(page, 1).get_by_label("strength").is_enabled()
        assert values(page, "strength_1", "adapter_2") == [1, "none"]
        assert page.errors == []


def pulled(page: Canvas, number: int, to: int, name: str | None = None) -> None:
    """Drag a row by its button to where another one is; keep a picture of it meanwhile."""
    button, target = (line(page, row).locator(".lyco-more").bounding_box() for row in (number, to))
    assert button
    assert target
    page.page.mouse.move(button["x"] + 5, button["y"] + 10)
    page.page.mouse.down()
    page.page.mouse.move(target["x"] + 5, target["y"] + (20 if to > number else 2), steps=6)
    page.page.wait_for_selector(".lyco-drop-above, .lyco-drop-below")
    if name:
        keep(page.page, KEPT, name)
    page.page.mouse.up()


def sent(page: Canvas, *names: str) -> list[object]:
    """What the page would send of the node."""
    nodes = page.page.evaluate("app.graphToPrompt().then(({output}) => Object.values(output))")
    (node,) = [node for node in nodes if node["class_type"] == "LycoLoadAdapters"]
    return [node["inputs"][name] for name in names]


@pytest.mark.parametrize("renderer", RENDERERS)
def test_rows_are_dragged_and_moved_by_keys(renderer: str, server: Server):
    """Their values move, so that workflow, undo and what is sent are right; a row with a link stays where it is."""
    with opened(server, **RENDERERS[renderer]) as page:
        page.page.wait_for_function("app.extensionManager.workflow.activeWorkflow")
        rows = {"adapter_1": LOKR, "adapter_2": HALF, "strength_2": 0.5, "adapter_3": CUT, "on_3": False}
        node = page.add("LycoLoadAdapters", 300, 200, **rows)
        page.wait("is cut off")
        page.page.evaluate(CAPTURE)
        line(page, 3).locator(".lyco-unfold").click()
        pulled(page, 1, 3, f"rows-dragged-{renderer}")
        moved = {"adapter_1": HALF, "strength_1": 0.5, "adapter_2": CUT, "on_2": False, "adapter_3": LOKR}
        becomes(page, **moved, strength_2=1, on_3=True)
        assert not page.page.locator(".litecontextmenu").count()  # the click that ends it opens no menu
        assert sent(page, "adapter_1", "strength_1", "adapter_2", "on_2", "adapter_3") == list(moved.values())
        page.page.wait_for_timeout(300)
        page.page.mouse.click(20, 500)
        page.page.keyboard.press("Control+z")
        becomes(page, **rows, on_2=True, strength_1=1)
        page.page.keyboard.press("Control+y")
        becomes(page, **moved)
        page.page.wait_for_timeout(400)

        line(page, 3).get_by_label("strength").focus()
        page.page.keyboard.press("Alt+ArrowUp")
        becomes(page, adapter_2=LOKR, adapter_3=CUT, on_3=False, strength_2=1)
        focused = "document.activeElement.getAttribute('aria-label')"
        assert page.page.evaluate(focused) == "strength: 2. my_lokr"

        page.connect(page.add("PrimitiveFloat", 20, 90, value=0.3), 0, node, "strength_2")
        page.page.wait_for_function("document.querySelectorAll('.lyco-row input:disabled').length")
        line(page, 2).locator(".lyco-choice").focus()
        page.page.keyboard.press("Alt+ArrowUp")
        pulled(page, 3, 1)
        becomes(page, adapter_1=CUT, on_1=False, adapter_2=LOKR, adapter_3=HALF, strength_3=0.5, on_3=True)
        held = line(page, 1).locator(".lyco-more").bounding_box()
        assert held
        page.page.mouse.move(held["x"] + 5, held["y"] + 5)
        page.page.mouse.down()
        page.page.mouse.move(400, 600, steps=4)
        page.page.keyboard.press("Escape")
        page.page.mouse.up()
        assert values(page, "adapter_1", "adapter_3") == [CUT, HALF]
        assert page.errors == []


@pytest.mark.parametrize("renderer", RENDERERS)
def test_rows_move_and_go(renderer: str, server: Server):
    with opened(server, **RENDERERS[renderer]) as page:
        page.add(
            "LycoLoadAdapters", 300, 200, adapter_1=LOKR, adapter_2=HALF, strength_2=0.5, adapter_3=CUT, on_3=False
        )
        page.wait("is cut off")  # what cannot be read says so unasked
        line(page, 2).locator(".lyco-more").click()
        picked(page, "Move up")
        becomes(page, adapter_1=HALF, strength_1=0.5, adapter_2=LOKR, strength_2=1)
        line(page, 1).locator(".lyco-more").click()
        picked(page, "Remove")
        becomes(page, adapter_1=LOKR, strength_1=1, adapter_2=CUT, on_2=False, adapter_3="none", on_3=True)
        assert line(page, 1).locator(".lyco-more").get_attribute("title") == "more; drag, or Alt and ↑ ↓, to move"
        page.page.get_by_role("switch", name="all").click()
        becomes(page, on_1=False, on_2=False)
        page.page.get_by_role("switch", name="all").click()
        becomes(page, on_1=True, on_2=True)
        assert lines(page) == ["my_lokr", "cut", "+ choose a file"]
        assert page.errors == []


@pytest.mark.parametrize("plain_http", (False, True))
def test_trigger_words_are_copied(plain_http: bool, server: Server):
    with opened(server) as page:
        if plain_http:
            page.page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
        else:
            page.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.add("LycoLoadAdapter", 300, 120, adapter=LOKR)
        page.page.evaluate("document.addEventListener('copy', (event) => (window.lycoCopied = event.target.value))")
        page.page.locator(".lyco-copy").click()
        page.wait("copied")
        if plain_http:
            assert page.page.evaluate("window.lycoCopied") == "ukiyoe style"
        else:
            assert page.page.evaluate("navigator.clipboard.readText()") == "ukiyoe style"
        page.page.locator(".lyco-copy", has_text="copy").wait_for()
        assert page.errors == []


@pytest.mark.parametrize("locale, words", (("ja", "ファイルを選ぶ"), ("zh", "选择文件")))
def test_rows_in_other_languages_and_light(locale: str, words: str, server: Server):
    with opened(server, Locale=locale, ColorPalette="light", VueNodes_Enabled=True) as page:
        page.add("LycoLoadAdapters", 300, 200, adapter_1=LOKR, adapter_2=HALF)
        page.wait(words)
        line(page, 1).locator(".lyco-unfold").click()
        page.wait("ukiyoe style")
        keep(page.page, KEPT, f"rows-{locale}")
        assert page.errors == []
