"""The help page of a node in each language, with its picture."""

import pytest
from lyco_testing.comfy import Server
from lyco_testing.locales import read
from lyco_testing.page import KEPT, keep, opened

WORDS = {"en": "Common errors", "ja": "よくあるエラー", "zh": "常见错误"}


@pytest.mark.parametrize("language", WORDS)
def test_a_node_has_its_help_page_and_the_page_its_picture(language: str, server: Server):
    title = read(language)["LycoLoadAdapter"]["display_name"]
    with opened(server, Locale=language, VueNodes_Enabled=True) as page:
        node = page.add("LycoLoadAdapter", 300, 200, adapter="my_lokr.safetensors")
        page.page.locator(f'[data-node-id="{node}"]').get_by_text(title).click()  # selects the node
        page.page.get_by_test_id("info-button").click()
        shown = page.page.locator(".node-help-content")
        shown.get_by_role("heading", name=title).wait_for()
        assert shown.get_by_role("heading", name=WORDS[language]).count() == 1
        page.page.wait_for_function("document.querySelector('.node-help-content img').naturalWidth > 0")
        keep(page.page, KEPT, f"help-{language}")
        assert page.errors == []


@pytest.mark.parametrize("language", sorted({*WORDS} - {"en"}))
@pytest.mark.parametrize("renderer", [{}, {"VueNodes_Enabled": True}], ids=["classic", "vue"])
def test_nodes_speak_it(renderer: dict[str, object], language: str, server: Server):
    words = read(language)
    with opened(server, Locale=language, **renderer) as page:
        for kind, said in words.items():
            page.clear()
            node = page.add(kind)
            title, widgets, slots = page.page.evaluate(
                """id => {
                    const node = app.graph.getNodeById(id);
                    const named = (slots) => slots.map((slot) => [slot.name, slot.label ?? slot.localized_name]);
                    return [node.getTitle(), named(node.widgets), named(node.inputs)];
                }""",
                node,
            )
            assert title == said["display_name"]
            shown = {name: label for name, label in [*widgets, *slots] if name in said["inputs"]}
            assert shown == {name: slot["name"] for name, slot in said["inputs"].items()}
        keep(page.page, KEPT, f"speaks-{language}-{len(renderer)}")


def test_the_side_panel_lists_parameters_and_no_card(server: Server):
    with opened(server, RightSidePanel_IsOpen=True) as page:
        node = page.add("LycoInspectAdapter", 300, 200, adapter="my_lokr.safetensors")
        page.page.wait_for_function(  # a page that is still opening drops the selection
            """id => {
                app.canvas.selectNode(app.graph.getNodeById(id));
                const shown = document.querySelectorAll("[data-testid=properties-panel] *");
                return [...shown].some((element) => element.textContent.trim() === "adapter");
            }""",
            arg=node,
            polling=500,
        )
        panel = page.page.get_by_test_id("properties-panel")
        assert "lyco_card" not in panel.inner_text()
