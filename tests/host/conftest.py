"""Host tests run in a real ComfyUI, or are skipped with a line that says how to get one."""

import importlib
from pathlib import Path
from types import SimpleNamespace

import pytest
from lyco_testing.comfy import (
    ROOT,
    Server,
    find_comfyui,
    import_comfyui,
    import_pack,
    running_server,
    why_no_server,
    why_not,
)
from lyco_testing.skipping import in_comfyui

COMFYUI = find_comfyui()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    in_comfyui(items, Path(__file__).parent, why_not(COMFYUI))


@pytest.fixture(scope="session")
def pack():
    """The pack's modules in a process that ComfyUI is imported into."""
    assert COMFYUI is not None
    import_comfyui(COMFYUI)
    return import_pack()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory):
    """A server with the pack and the probe nodes, shared by the tests."""
    assert COMFYUI is not None
    if reason := why_no_server(COMFYUI):
        pytest.skip(reason)
    packs = {"comfyui-lyco": ROOT, "probes": Path(__file__).parent / "probes"}
    with running_server(COMFYUI, tmp_path_factory.mktemp("comfyui"), packs) as running:
        assert isinstance(running, Server)
        yield running


@pytest.fixture
def loras(tmp_path, monkeypatch, pack):
    """An empty models/loras."""
    import folder_paths

    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", ([str(tmp_path)], {".safetensors"}))
    return tmp_path


@pytest.fixture
def host(pack):
    """The pack's `nodes.host`."""
    return importlib.import_module(f"{pack.__name__}.nodes.host")


@pytest.fixture(scope="session")
def train(pack) -> SimpleNamespace:
    """The pack's modules of training."""
    names = {
        "run": "nodes.host.training.run",
        "adapter_files": "nodes.host.training.adapter_files",
        "model": "nodes.host.training.flow_model",
        "conditions": "nodes.host.training.conditions",
        "memory": "nodes.host.training.memory",
        "placing": "nodes.host.training.placing",
        "linears": "nodes.host.training.linears",
        "demand": "nodes.host.training.demand",
        "draws": "lyco_core.train.draws",
        "samples": "nodes.host.training.samples",
        "sampling": "nodes.host.training.sampling",
        "memory_options": "lyco_core.train.memory_options",
        "swapped_block": "lyco_core.train.swapped_block",
        "architectures": "lyco_core.architectures",
        "headless": "nodes.headless",
        "configuration": "lyco_core.train.configuration",
        "options": "lyco_core.train.options",
        "items": "lyco_core.train.items",
        "network": "lyco_core.train.network",
        "targets": "lyco_core.train.targets",
        "loading": "nodes.host.model.matching",
        "errors": "lyco_core.errors",
    }
    return SimpleNamespace(**{k: importlib.import_module(f"{pack.__name__}.{v}") for k, v in names.items()})
