"""Browser tests drive a real page of a real ComfyUI, or are skipped with a line that says what is missing."""

import importlib.util
from pathlib import Path

import pytest
from lyco_testing.comfy import ROOT, find_comfyui, running_server, why_no_server, why_not
from lyco_testing.page_files import fill
from lyco_testing.skipping import in_comfyui

COMFYUI = find_comfyui()


def _lacking() -> str | None:
    if reason := why_not(COMFYUI):
        return reason
    if importlib.util.find_spec("playwright") is None:
        return "the browser tests need playwright: pip install playwright"
    from lyco_testing.page import find_chromium

    return None if find_chromium() else "the browser tests need Chromium: apt install chromium"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    in_comfyui(items, here, _lacking())
    for item in items:
        if here in item.path.parents:
            # A page on a machine under load now and then misses a click; pytest's summary counts the reruns.
            item.add_marker(pytest.mark.flaky(reruns=2))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory):
    """A server with the pack, a tiny Wan, and adapters of every fate."""
    assert COMFYUI is not None
    if reason := why_no_server(COMFYUI):
        pytest.skip(reason)
    packs = {"comfyui-lyco": ROOT, "probes": ROOT / "tests" / "host" / "probes"}
    base = tmp_path_factory.mktemp("comfyui")
    with running_server(COMFYUI, base, packs) as running:
        fill(running)
        yield running
