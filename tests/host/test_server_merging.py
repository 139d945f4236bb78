"""The merging nodes in a running ComfyUI: what they make samples like the base with the adapter loaded."""

import pytest
import torch
from lyco_testing.comfy import Server, WorkflowError
from lyco_testing.tiny_wan import latents, wan_adapter, wan_checkpoint, workflow
from safetensors import safe_open
from safetensors.torch import load_file, save_file


@pytest.fixture(scope="module")
def files(server: Server) -> Server:
    models, loras = server.base / "models" / "diffusion_models", server.base / "models" / "loras"
    save_file(wan_checkpoint(), models / "merge_base.safetensors")
    save_file(wan_adapter(), loras / "merge_lokr.safetensors")
    save_file(
        {k.replace("blocks_1", "blocks_9"): v for k, v in wan_adapter().items()}, loras / "merge_half.safetensors"
    )
    return server


def into_model(model: str, **inputs: object) -> dict:
    nodes = workflow(model)
    settings = {"model": ["model", 0], "adapter": "merge_lokr.safetensors", "strength": 0.8}
    nodes["merge"] = {"class_type": "LycoMergeAdapter", "inputs": settings | inputs}
    nodes["sample"]["inputs"]["model"] = ["merge", 0]
    nodes["show"] = {"class_type": "PreviewAny", "inputs": {"source": ["merge", 1]}}
    return nodes


def into_file(**inputs: object) -> dict:
    settings = {"base": "diffusion_models/merge_base.safetensors", "adapter": "merge_lokr.safetensors"}
    settings |= {"strength": 0.8, "filename": "merged"}
    settings |= {"dtype": "as it is", "rounding_seed": -1, "gpu": False, "overwrite": False}
    return {"merge": {"class_type": "LycoMergeCheckpoint", "inputs": settings | inputs}}


@pytest.mark.every_host
def test_a_merged_model_samples_like_a_loaded_adapter(files: Server):
    plain = latents(files, files.run(workflow("merge_base.safetensors")))
    loaded = latents(files, files.run(workflow("merge_base.safetensors", "merge_lokr.safetensors")))
    outputs = files.run(into_model("merge_base.safetensors"))
    merged = latents(files, outputs)
    change = (loaded - plain).norm()
    assert change > 0.02 * plain.norm()
    assert (merged - loaded).norm() < 1e-5 * change
    assert "20 weights merged" in outputs["show"]["text"][0]
    # The input stayed as it was.
    assert torch.equal(plain, latents(files, files.run(workflow("merge_base.safetensors") | {"again": show()})))


def show() -> dict:
    """One more node, so that the prompt is another."""
    return {"class_type": "PreviewAny", "inputs": {"source": ["model", 0]}}


def test_stock_save_model_writes_what_was_merged(files: Server):
    nodes = into_model("merge_base.safetensors")
    nodes["save_model"] = {
        "class_type": "ModelSave",
        "inputs": {"model": ["merge", 0], "filename_prefix": "diffusion_models/saved"},
    }
    merged = latents(files, files.run(nodes))
    again = latents(files, files.run(workflow("saved_00001_.safetensors")))
    assert torch.equal(merged, again)


@pytest.mark.every_host
def test_a_merged_file_samples_like_a_loaded_adapter(files: Server):
    nodes = workflow("merge_base.safetensors")
    nodes |= into_file(filename="by_node")
    nodes["model"]["inputs"]["unet_name"] = ["merge", 0]
    outputs = files.run(nodes)
    loaded = latents(files, files.run(workflow("merge_base.safetensors", "merge_lokr.safetensors")))
    plain = latents(files, files.run(workflow("merge_base.safetensors")))
    assert (latents(files, outputs) - loaded).norm() < 1e-5 * (loaded - plain).norm()
    assert "by_node.safetensors (output/diffusion_models): 20 of" in outputs["merge"]["text"][0]
    with safe_open(files.base / "output/diffusion_models/by_node.safetensors", "pt") as file:
        assert "merge_lokr.safetensors" in file.metadata()["lyco_merge"]


def test_several_adapters_in_one_pass_undo_each_other(files: Server):
    once = "merge_lokr.safetensors@-0.8"
    files.run(into_file(filename="undone", more_adapters=once))
    saved = load_file(files.base / "output/diffusion_models/undone.safetensors")
    for key, tensor in wan_checkpoint().items():
        assert torch.allclose(saved[key], tensor, atol=1e-6)


REFUSED = [
    ({"adapter": "merge_half.safetensors"}, "merge_half.safetensors: 10 of 20 modules are not in the model"),
    ({"filename": "../up"}, "expected a plain file name, without folders, for output/diffusion_models"),
    ({"include": "("}, "'(' is no regular expression"),
    ({"include": "nothing"}, "the pattern 'nothing' matches no module"),
    ({"more_adapters": "absent.safetensors"}, "'absent.safetensors': there is no such file in models/loras"),
]


@pytest.mark.parametrize(("inputs", "reason"), REFUSED)
def test_refusals_leave_no_file(files: Server, inputs: dict, reason: str):
    before = sorted(files.base.rglob("*.safetensors*"))
    with pytest.raises(WorkflowError) as caught:
        files.run(into_file(**inputs))
    assert reason in str(caught.value)
    assert sorted(files.base.rglob("*.safetensors*")) == before
