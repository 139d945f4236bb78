"""What the README tells a newcomer to do, from a clone to a picture, with the mouse."""

from pathlib import Path

from lyco_testing.comfy import ROOT, find_comfyui, import_comfyui, running_server
from lyco_testing.example_files import write_models
from lyco_testing.page import KEPT, Canvas, keep, opened
from lyco_testing.tiny_wan import TEXT
from PIL import Image


def open_template(page: Canvas, title: str) -> None:
    """Templates, Extensions, comfyui-lyco, the template of this title."""
    page.page.get_by_role("button", name="Templates").first.click()
    page.page.get_by_text("comfyui-lyco", exact=True).first.click()
    page.page.get_by_text(title, exact=True).first.click()
    page.page.wait_for_function("app.graph.nodes.some((node) => node.type === 'LycoLoadAdapter')")


def without_text_encoder(page: Canvas) -> None:
    """A probe instead of Load CLIP, whose file a test cannot have."""
    probe = page.add("ProbeClip", 0, 1200, width=TEXT)
    page.page.evaluate(
        """probe => {
            const node = app.graph.nodes.find((node) => node.type === "CLIPLoader");
            for (const id of [...node.outputs[0].links]) {
                const {target_id, target_slot} = app.graph.links[id];
                app.graph.getNodeById(probe).connect(0, app.graph.getNodeById(target_id), target_slot);
            }
            app.graph.remove(node);
            const latent = app.graph.nodes.find((node) => node.type === "EmptySD3LatentImage");
            lycoChoose(latent, "width", 64), lycoChoose(latent, "height", 64);
        }""",
        probe,
    )


def test_from_the_clone_to_the_picture(tmp_path: Path):
    comfyui = find_comfyui()
    assert comfyui is not None
    import_comfyui(comfyui)
    packs = {"comfyui-lyco": ROOT, "probes": ROOT / "tests" / "host" / "probes"}
    with running_server(comfyui, tmp_path, packs) as server:
        write_models(tmp_path)
        with opened(server, (1600, 1000), VueNodes_Enabled=True) as page:
            open_template(page, "Load a LoHa or LoKr")
            page.wait("Wan 2.1/2.2")  # the card of the file that the template names
            without_text_encoder(page)
            page.page.get_by_test_id("queue-button").click()
            page.wait("20 of 20 modules matched", 60)
            page.page.wait_for_function(
                "app.graph.nodes.some((node) => node.type === 'SaveImage' && node.imgs?.length)"
            )
            keep(page.page, KEPT, "readme")
            assert page.errors == []
        (picture,) = (tmp_path / "output").glob("lokr_*.png")
        with Image.open(picture) as image:
            assert image.size == (64, 64)
