"""Browser tests drive a real page of a real ComfyUI, or are skipped with a line that says what is missing."""

import base64
import importlib.util
import io
from pathlib import Path

import pytest
from lyco_testing.comfy import ROOT, Server, find_comfyui, running_server, why_not
from lyco_testing.tiny_wan import wan_adapter, wan_checkpoint
from safetensors.torch import save_file

COMFYUI = find_comfyui()


def _lacking() -> str | None:
    if reason := why_not(COMFYUI):
        return reason
    if importlib.util.find_spec("playwright") is None:
        return "the browser tests need playwright: pip install playwright"
    from lyco_testing.page import find_chromium

    return None if find_chromium() else "the browser tests need Chromium: apt install chromium"


REASON = _lacking()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.host)
            item.add_marker(pytest.mark.filterwarnings("default"))  # playwright's own warnings are not ours
            if REASON is not None:
                item.add_marker(pytest.mark.skip(reason=REASON))


def thumbnail() -> str:
    """A small JPEG as ModelSpec's metadata hold it."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((96, 96)).convert("RGB").save(buffer, "JPEG")
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory):
    """A server with the pack, a tiny Wan, and adapters of every fate."""
    assert COMFYUI is not None
    packs = {"comfyui-lyco": ROOT, "probes": ROOT / "tests" / "host" / "probes"}
    base = tmp_path_factory.mktemp("comfyui")
    with running_server(COMFYUI, base, packs) as running:
        fill(running)
        yield running


def fill(server: Server) -> None:
    """The models that the pages choose from."""
    loras, tensors = server.base / "models" / "loras", wan_adapter()
    save_file(wan_checkpoint(), server.base / "models" / "diffusion_models" / "wan.safetensors")
    about = {
        "ss_network_module": "networks.lokr",
        "ss_output_name": "ukiyo-e",
        "ss_steps": "1600",
        "modelspec.trigger_phrase": "ukiyoe style",
        "modelspec.thumbnail": thumbnail(),
    }
    save_file(tensors, loras / "my_lokr.safetensors", about)
    save_file({k.replace("blocks_1", "blocks_9"): v for k, v in tensors.items()}, loras / "half.safetensors")
    markup = "<img src=x onerror=lycoBroken()>"
    hostile = {"modelspec.title": markup, "modelspec.description": markup, "modelspec.trigger_phrase": markup}
    save_file(
        {**tensors, f"{markup}.weight": tensors["lora_unet_blocks_0_ffn_0.alpha"].clone()},
        loras / "hostile.safetensors",
        hostile,
    )
    (loras / "cut.safetensors").write_bytes((loras / "my_lokr.safetensors").read_bytes()[:-100])
