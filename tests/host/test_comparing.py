"""*Compare Adapters* in a real ComfyUI."""

import pytest
import torch
from lyco_testing.comfy import Server, WorkflowError
from lyco_testing.tables import lokr, musubi_file, random
from safetensors.torch import save_file

from lyco_core.comparing import compare_files
from lyco_core.merging import Source

SHAPES = {"blocks.0.self_attn.q": (64, 64), "blocks.0.ffn.0": (160, 64)}


@pytest.fixture(scope="module")
def files(server: Server) -> list[str]:
    torch.manual_seed(2)
    folder = server.base / "models" / "loras"
    for algorithm in ("lokr", "lora"):
        save_file(musubi_file(SHAPES, algorithm, random), folder / f"compare_{algorithm}.safetensors")
    save_file(lokr("lora_unet_double_blocks_0_img_attn_qkv", 192, 64, random), folder / "compare_flux.safetensors")
    return ["compare_lokr.safetensors", "compare_lora.safetensors"]


def workflow(files: list[str], **inputs: object) -> dict:
    rows = {"adapter_1": files[0], "strength_1": 0.8, "on_1": True, "adapter_2": files[1], "strength_2": -0.5}
    return {"compare": {"class_type": "LycoCompareAdapters", "inputs": rows | inputs}}


@pytest.mark.every_host
def test_the_node_says_what_the_command_says(server: Server, files: list[str]):
    report = server.run(workflow(files))["compare"]["text"][0]
    first, second = (server.base / "models" / "loras" / name for name in files)
    assert report.splitlines() == compare_files(Source(first, 0.8), Source(second, -0.5)).lines()
    assert report.startswith("A  compare_lokr.safetensors at strength 0.8: norm ")


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        ({"on_2": False}, "two adapters are compared, and 1 are on; choose a file in each row"),
        (
            {"adapter_2": "compare_flux.safetensors"},
            "is an adapter for FLUX.1, and compare_lokr.safetensors is for Wan",
        ),
        ({"strength_1": 0.0}, "a strength is 0, so there is nothing to compare"),
    ],
)
def test_refusals(inputs: dict, reason: str, server: Server, files: list[str]):
    with pytest.raises(WorkflowError, match=reason):
        server.run(workflow(files, **inputs))
