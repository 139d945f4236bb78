"""*Extract Adapter* and *Resize Adapter* over the API: what they write loads, and does what the tuned model does."""

import pytest
import torch
from lyco_testing.comfy import Server, WorkflowError
from lyco_testing.comfy_models import patched_weight, tiny_model
from lyco_testing.tiny_wan import deltas, latents, wan_adapter, wan_checkpoint, workflow
from safetensors.torch import load_file, save_file

from lyco_core.approximate.extract import extract_file
from lyco_core.approximate.options import ExtractOptions, Limits

MODELS = "models/diffusion_models"


@pytest.fixture(scope="module")
def files(server: Server) -> Server:
    base, tensors = wan_checkpoint(), wan_adapter()
    changes = deltas(tensors)
    tuned = {k: (v.double() + changes[k]).float() if k in changes else v for k, v in base.items()}
    save_file(base, server.base / MODELS / "small_base.safetensors")
    save_file(tuned, server.base / MODELS / "small_tuned.safetensors")
    save_file(tensors, server.base / "models" / "loras" / "small_lokr.safetensors")
    return server


def node(kind: str, **inputs: object) -> dict:
    return {
        "node": {"class_type": kind, "inputs": inputs},
        "show": {"class_type": "PreviewAny", "inputs": {"source": ["node", 1]}},
    }


def extraction(**inputs: object) -> dict:
    settings = {
        "base": "diffusion_models/small_base.safetensors",
        "tuned": "diffusion_models/small_tuned.safetensors",
        "form": "lora",
        "by": "rank",
        "rank": 64,
        "share": 0.99,
        "filename": "",
        "dtype": "float32",
    }
    return node("LycoExtractAdapter", **settings | inputs)


@pytest.mark.every_host
@pytest.mark.parametrize("form", ["lora", "lokr"])
def test_what_is_extracted_samples_as_the_tuned_model(files: Server, form: str):
    rank = 64 if form == "lora" else 0
    text = files.run(extraction(form=form, rank=rank, filename=f"got_{form}"))["show"]["text"][0]
    assert "relative error" in text
    plain = latents(files, files.run(workflow("small_base.safetensors")))
    tuned = latents(files, files.run(workflow("small_tuned.safetensors")))
    found = latents(files, files.run(workflow("small_base.safetensors", f"got_{form}.safetensors", strength=1.0)))
    error = (found - tuned).norm() / (tuned - plain).norm()
    assert error < (1e-3 if form == "lora" else 0.9)


def test_every_kind_of_tensor_is_loaded_by_us_and_by_comfyui(tmp_path, loras, host):
    """Wan's modulation is no module's weight; norms and biases are none of a matrix."""
    import comfy.lora

    model = tiny_model("wan")
    base = model.model.diffusion_model.state_dict()
    torch.manual_seed(4)
    names = ("blocks.0.modulation", "head.modulation", "blocks.1.self_attn.norm_q.weight", "blocks.0.ffn.2.bias")
    changes = {name: torch.randn_like(base[name]) / 9 for name in (*names, "blocks.0.self_attn.q.weight")}
    save_file(base, tmp_path / "base.safetensors")
    save_file({k: t + changes.get(k, 0) for k, t in base.items()}, tmp_path / "tuned.safetensors")
    files = (tmp_path / "base.safetensors", tmp_path / "tuned.safetensors", loras / "all.safetensors")
    report = extract_file(*files, ExtractOptions("lora", Limits(rank=64)))
    assert (report.exact, len(report.modules), report.unchanged) == (4, 1, len(base) - 5)

    ours = host.load_onto(model, None, "all.safetensors", 1.0, partial=False).model
    patches = comfy.lora.load_lora(load_file(files[2]), comfy.lora.model_lora_keys_unet(model.model, {}))
    theirs = model.clone()
    theirs.add_patches(patches, 1.0)
    for patched in (ours, theirs):
        assert patched.patches.keys() == {f"diffusion_model.{name}" for name in changes}
        for name, change in changes.items():
            found = patched_weight(patched, f"diffusion_model.{name}") - base[name]
            assert float((found - change).norm() / change.norm()) < 1e-4, name


@pytest.mark.every_host
def test_a_resized_file_loads(files: Server):
    inputs = {"adapter": "small_lokr.safetensors", "by": "rank", "rank": 1, "share": 0.9, "filename": "less"}
    text = files.run(node("LycoResizeAdapter", **inputs))["show"]["text"][0]
    assert "20 LoKr, rank 1" in text
    made = load_file(files.base / "output" / "loras" / "less.safetensors")
    assert {t.shape[1] for k, t in made.items() if k.endswith("lokr_w2_a")} == {1}
    report = files.run(workflow("small_base.safetensors", "less.safetensors"))["show"]["text"][0]
    assert "20 of 20 modules" in report


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (extraction(tuned="diffusion_models/small_base.safetensors"), "none of its selected weights differs"),
        (extraction(by="energy", form="loha"), "chooses the rank of a LoRA, not of a LoHa; set by to rank"),
        (extraction(rank=0), "rank is 0, expected at least 1"),
        (extraction(filename="../x"), "expected a plain file name"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(files: Server, prompt: dict, message: str):
    with pytest.raises(WorkflowError, match=message):
        files.run(prompt)
