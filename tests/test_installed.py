"""Where the pack lies: what ComfyUI serves of it, and which copies there are."""

from pathlib import Path

import pytest
from lyco_testing.comfy import ROOT
from lyco_testing.links import symlink

from lyco_core.installed import packs_in, unserved


@pytest.mark.parametrize("name", ["comfyui-lyco", "ComfyUI_LyCO", "lyco.main-2", "lyco+1", "a,b;c=d@e!f$g&h'(i)*:~"])
def test_a_folder_that_comfyui_serves(name: str):
    assert unserved(Path("custom_nodes") / name) is None


@pytest.mark.parametrize(
    ("name", "odd"),
    [
        ("comfyui lyco", "a space"),
        ("comfyui-lyco-main (1)", "a space"),
        ("ロコ", "“ロコ”"),
        ("lyco é é", "“ é”"),
        ("lyco%20", "“%”"),
        ("lyco#[1]", "“#[]”"),
    ],
)
def test_a_folder_that_comfyui_serves_nothing_of(name: str, odd: str):
    told = unserved(Path("custom_nodes") / name)
    assert told is not None
    assert f"{Path('custom_nodes') / name}: " in told
    assert f"with {odd} in its name" in told
    assert "rename the folder" in told


@pytest.mark.parametrize("name", ["comfyui-lyco", "a,b;c=d@e!f$g&h'(i)*:~", "comfyui lyco", "ロコ", "lyco%20", "a[b]"])
def test_the_server_agrees(name: str, tmp_path: Path):
    """aiohttp itself, which is ComfyUI's server, tells whether it finds a file at its address."""
    web = pytest.importorskip("aiohttp.web", reason="aiohttp is not installed: it comes with ComfyUI")
    from aiohttp.test_utils import make_mocked_request
    from yarl import URL

    async def found() -> bool:
        app = web.Application()
        app.add_routes([web.static(f"/extensions/{name}", tmp_path)])
        address = URL.build(path=f"/extensions/{name}/lyco.js").raw_path
        match = await app.router.resolve(make_mocked_request("GET", address))
        return match.http_exception is None

    import asyncio

    assert asyncio.run(found()) == (unserved(Path(name)) is None)


def test_copies_of_the_pack_in_a_comfyui(tmp_path: Path):
    nodes = tmp_path / "custom_nodes"
    nodes.mkdir()
    assert packs_in(tmp_path) == []
    for name in ("b", "a", "off.disabled"):
        symlink(ROOT, nodes / name)
    (nodes / "other" / "nodes").mkdir(parents=True)
    (nodes / "other" / "nodes" / "headless.py").touch()
    assert packs_in(tmp_path) == [nodes / "a", nodes / "b"]
