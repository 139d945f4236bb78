"""*Training Dataset*'s card: what is in the folder before anything is queued, and what is wrong with it."""

from pathlib import Path

import pytest
from lyco_testing.comfy import Server
from lyco_testing.page import KEPT, RENDERERS, keep, opened
from PIL import Image

PICTURES = {"one": (128, 64), "two": (130, 64), "three": (64, 128), "four": (96, 96)}


@pytest.fixture(scope="module")
def folder(server: Server) -> Path:
    made = server.base / "input" / "my_pictures"
    made.mkdir(exist_ok=True)
    for name, size in PICTURES.items():
        Image.new("RGB", size).save(made / f"{name}.png")
        (made / f"{name}.txt").write_text(name)
    return made


@pytest.mark.parametrize("renderer", RENDERERS)
def test_what_is_in_a_folder(renderer: str, server: Server, folder: Path):
    with opened(server, (1280, 720), **RENDERERS[renderer]) as page:
        node = page.add("LycoTrainingDataset", 300, 60)
        page.wait("Choose a folder: what is in it is shown here.")
        page.choose(node, "folder", "my_pictures")
        page.wait("4 images")
        page.wait("all have captions")
        page.choose(node, "width", 96)
        page.choose(node, "height", 64)
        page.wait("96 × 64")
        assert page.page.locator(".lyco-dataset .lyco-count").all_inner_texts() == ["2", "1", "1"]
        keep(page.page, KEPT, f"dataset-{renderer}")
        page.choose(node, "caption_extension", ".caption")
        page.wait("4 of 4 have no caption")
        keep(page.page, KEPT, f"dataset-wrong-{renderer}")
        page.choose(node, "caption_extension", ".txt")
        page.wait("96 × 64")
        (folder / "four.txt").rename(folder / "four.old")
        try:
            page.page.evaluate("app.refreshComboInNodes()")
            page.wait("1 of 4 have no caption")
        finally:
            (folder / "four.old").rename(folder / "four.txt")
        assert page.errors == []
