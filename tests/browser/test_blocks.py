"""The blocks of a file on its card: bars, and sliders that write `block_strengths`, with pointer and keyboard."""

import pytest
from lyco_testing.comfy import Server
from lyco_testing.page import KEPT, RENDERERS, Canvas, keep, opened
from lyco_testing.page_files import many_blocks
from lyco_testing.page_sizes import GAPS, at_rest

FLUX, TEXT = "blocks_flux.safetensors", "block_strengths"
VALUE = f"""() => app.graph.nodes.find((node) => node.comfyClass === "LycoLoadAdapter")
    .widgets.find(({{name}}) => name === "{TEXT}").value"""


@pytest.fixture(scope="module")
def flux(server: Server) -> str:
    """A file of many blocks."""
    many_blocks(server.base / "models" / "loras" / FLUX)
    return FLUX


def becomes(page: Canvas, text: str) -> None:
    """Until the node's text is this."""
    page.page.wait_for_function(f"text => ({VALUE})() === text", arg=text)


def unfolded(page: Canvas, file: str) -> int:
    """A node with this file, and its blocks."""
    page.page.wait_for_function("app.extensionManager.workflow.activeWorkflow")
    node = page.add("LycoLoadAdapter", 300, 90, adapter=file)
    page.wait("ukiyoe style")
    page.take_state()
    page.page.locator(".lyco-blocks-fold > button").click()
    page.page.locator(".lyco-strip").first.wait_for()
    at_rest(page)
    return node


def at(page: Canvas, strip: int, across: float, up: float) -> tuple[float, float]:
    """Where on the page a part of a strip is."""
    box = page.page.locator(".lyco-strip").nth(strip).bounding_box()
    assert box
    return box["x"] + box["width"] * across, box["y"] + box["height"] * (1 - up)


@pytest.mark.parametrize("renderer", RENDERERS)
def test_blocks_are_drawn_stepped_reset_undone_and_saved(renderer: str, server: Server, flux: str):
    with opened(server, (1300, 1100), **RENDERERS[renderer]) as page:
        node = unfolded(page, flux)
        mouse, keyboard = page.page.mouse, page.page.keyboard
        assert page.page.locator(".lyco-strip").count() == 2
        assert page.page.locator(".lyco-column").count() == 57
        assert all(abs(gap) < 2 for gap in page.page.evaluate(GAPS))

        # The last block's bar is where its norm is, the highest one meets the line at 1.
        heights = page.page.locator(".lyco-part").evaluate_all("bars => bars.map((bar) => bar.offsetHeight)")
        assert max(heights) == 28
        assert min(heights) < 14

        # Across four blocks; a press on a strip moves no node.
        before = page.page.evaluate("id => [...app.graph.getNodeById(id).pos]", node)
        mouse.move(*at(page, 1, 9.5 / 38, 0.25))
        mouse.down()
        mouse.move(*at(page, 1, 12.5 / 38, 0.25), steps=3)
        page.page.get_by_text("12: ").wait_for()
        mouse.up()
        becomes(page, r"single_blocks\.(9|1[0-2])\..*=0.5")
        assert page.page.evaluate("id => [...app.graph.getNodeById(id).pos]", node) == before
        mouse.move(30, 900)
        at_rest(page)
        keep(page.page, KEPT, f"blocks-{renderer}")

        mouse.dblclick(*at(page, 1, 9.5 / 38, 0.25))
        becomes(page, r"single_blocks\.1[0-2]\..*=0.5")
        at_rest(page)
        keyboard.press("Control+z")
        becomes(page, r"single_blocks\.(9|1[0-2])\..*=0.5")
        page.page.locator(".lyco-turned").nth(3).wait_for()  # still unfolded, and as the text is now
        keyboard.press("Control+y")
        becomes(page, r"single_blocks\.1[0-2]\..*=0.5")
        page.page.wait_for_function("document.querySelectorAll('.lyco-turned').length === 3")

        # The keyboard: one stop of Tab for each strip, arrows between blocks.
        page.page.get_by_role("slider", name="double_blocks 0").focus()
        for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowLeft", "Home"):
            keyboard.press(key)
        lines = ["double_blocks\\.2\\..*=0.95", "double_blocks\\.1\\..*=0", r"single_blocks\.1[0-2]\..*=0.5"]
        becomes(page, "\n".join(sorted(lines[:2]) + lines[2:]))
        assert page.page.get_by_role("slider", name="double_blocks 1", exact=True).get_attribute("aria-valuetext")
        stops = page.page.locator(".lyco-strip input[tabindex='0']")
        assert stops.count() == 2

        # All of a kind at once, and a file of it, which is then used.
        field = page.page.get_by_label("strength: single_blocks")
        field.fill("0.4")
        field.press("Enter")
        becomes(page, "\n".join([*sorted(lines[:2]), r"single_blocks\.\d+\..*=0.4"]))
        page.page.get_by_role("button", name="save as a file").click()
        page.wait("Saved as blocks_flux_blocks")
        page.page.get_by_role("button", name="use it here").click()
        becomes(page, "")
        page.page.wait_for_function("document.querySelectorAll('.lyco-column').length === 56")  # one was at 0
        assert page.page.get_by_role("button", name="save as a file").count() == 0
        assert page.errors == []


@pytest.mark.parametrize("renderer", RENDERERS)
def test_beside_the_weights_of_the_model_that_is_connected(renderer: str, server: Server, flux: str):
    """Through a node that changes the model, and no longer once another model is chosen."""
    with opened(server, (1300, 1100), **RENDERERS[renderer]) as page:
        node = unfolded(page, "my_lokr.safetensors")
        ask = page.page.get_by_role("button", name="beside the model's weights")
        assert ask.count() == 0
        loader = page.add("UNETLoader", 20, 400, unet_name="wan.safetensors")
        between = page.add("ModelSamplingSD3", 20, 600)
        page.connect(loader, 0, between, "model")
        page.connect(between, 0, node, "model")
        ask.click()
        page.wait("of the weights of wan.safetensors (W).")
        assert ask.count() == 0
        assert page.page.locator(".lyco-kinds").get_by_text("of W").count() == 10
        page.page.mouse.move(*at(page, 0, 0.75, 0.25))
        page.page.get_by_text("of W)").wait_for()
        at_rest(page)
        keep(page.page, KEPT, f"against-{renderer}")

        page.choose(loader, "unet_name", "z_image_turbo_bf16.safetensors")
        page.take_state()
        ask.wait_for()
        assert page.page.get_by_text("of W").count() == 0
        page.choose(node, "adapter", flux)
        page.page.locator(".lyco-strip").nth(1).wait_for()
        ask.click()
        page.wait("FLUX.1")
        keep(page.page, KEPT, f"against-wrong-{renderer}")
        assert page.errors == []


def test_a_text_of_another_form_is_left_alone(server: Server, flux: str):
    with opened(server) as page:
        node = unfolded(page, flux)
        page.choose(node, TEXT, r"double_blocks\.(\d|1\d)\..*=0.5")  # by hand, of the form that the sliders write
        page.page.wait_for_function("document.querySelectorAll('.lyco-turned').length === 19")
        page.choose(node, TEXT, ".*mlp.*=0.5")
        page.wait("the sliders leave them alone")
        page.page.mouse.click(*at(page, 0, 0.5, 0.25))
        page.page.wait_for_timeout(200)
        becomes(page, ".*mlp.*=0.5")
        assert page.page.get_by_role("slider", name="double_blocks 0").is_disabled()
        keep(page.page, KEPT, "blocks-custom")
        assert page.errors == []


@pytest.mark.parametrize(("locale", "words"), (("ja", "ブロックごとの変化"), ("zh", "各块的变化")))
def test_in_other_languages_and_light(locale: str, words: str, server: Server, flux: str):
    with opened(server, Locale=locale, ColorPalette="light", VueNodes_Enabled=locale == "ja") as page:
        node = unfolded(page, flux)
        page.choose(node, TEXT, r"single_blocks\.[2-9]\..*=1.5")
        page.page.get_by_role("button", name=words).wait_for()
        page.page.locator(".lyco-turned").nth(7).wait_for()
        at_rest(page)
        keep(page.page, KEPT, f"blocks-{locale}")
        assert page.errors == []
