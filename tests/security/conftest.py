"""Only the tests of the route need a ComfyUI."""

from pathlib import Path

import pytest
from lyco_testing.comfy import ROOT, find_comfyui, running_server, why_not
from lyco_testing.skipping import in_comfyui

COMFYUI = find_comfyui()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    in_comfyui(items, Path(__file__).with_name("test_route.py"), why_not(COMFYUI))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory):
    """A server with the pack and nothing else."""
    assert COMFYUI is not None
    with running_server(COMFYUI, tmp_path_factory.mktemp("comfyui"), {"comfyui-lyco": ROOT}) as running:
        yield running
