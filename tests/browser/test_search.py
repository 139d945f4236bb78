"""What a person who looks for a node types, and whether one of ours is among the first that ComfyUI's search shows."""

import pytest
from lyco_testing.comfy import Server
from lyco_testing.page import KEPT, NEW, keep, opened

SHOWN = """() => [...document.querySelectorAll('[role=option], [data-testid=result-item]')]
    .filter((row) => row.getClientRects().length && row.getBoundingClientRect().bottom <= innerHeight)
    .map((row) => row.innerText.split('\\n').filter(Boolean)[0])"""

FOUND = {
    "lora": ("LoRA/LoHa/LoKr Stack Loader", 7),
    "load lora": ("LoRA/LoHa/LoKr Stack Loader", 6),
    "inspect lora": ("Inspect Adapter", 1),
    "lokr": ("Load LoHa/LoKr", 1),
    "lycoris": ("Load LoHa/LoKr", 4),
    "merge": ("Merge into Model", 5),
    "merge lora": ("Merge into Model", 1),
    "merge loras": ("Combine Adapters", 1),
    "combine": ("Combine Adapters", 5),
    "convert": ("Convert Musubi→Diffusers", 7),
    "comfyui": ("Convert Musubi→Diffusers", 9),
}
"""Typed -> the node that is looked for, and its place at most. ComfyUI sorts by how the name and the display name hold
what is typed, then by how often people use the node, and those of packs count as never: before ours come its own."""


def test_what_people_type_shows_ours_among_the_first(server: Server):
    with opened(server, (1280, 720)) as page:
        if page.version < NEW:
            pytest.skip("this frontend's search looks otherwise")
        page.search_field(700, 450)
        for typed, (name, place) in FOUND.items():
            page.page.keyboard.press("Control+A")
            page.page.keyboard.type(typed)
            page.page.wait_for_function(
                f"([name, place]) => ({SHOWN})().slice(0, place).includes(name)", arg=[name, place]
            )
        keep(page.page, KEPT, "search")
        assert page.errors == []
