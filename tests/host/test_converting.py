"""Converted files in stock ComfyUI's own loader, and the node that makes them."""

import logging

import pytest
import torch
from lyco_testing.comfy import Server, WorkflowError
from lyco_testing.comfy_models import MODELS, patched_weight, tiny_model
from lyco_testing.hosted import expected_weights, tiny_targets
from lyco_testing.tables import musubi_file, random
from lyco_testing.zoo import CASES, normal
from lyco_testing.zoo_on_base import ON_BASE
from safetensors.torch import load_file, save_file

from lyco_core.adapter_set import AdapterSet
from lyco_core.adapters import Adapter, LoHa, LoKr, LoRA
from lyco_core.conversion import ConvertOptions, computes, convert_file
from lyco_core.formats import FORMATS, emit


@pytest.mark.parametrize("architecture", MODELS)
@pytest.mark.parametrize("algorithm", ["lokr", "loha", "lora"])
@pytest.mark.parametrize("as_lora", [False, True])
def test_stock_comfyui_loads_every_key(architecture, algorithm, as_lora, tmp_path, pack, caplog):
    import comfy.lora

    torch.manual_seed(1)
    tensors = musubi_file(tiny_targets(architecture), algorithm, random)
    save_file(tensors, tmp_path / "a")
    convert_file(tmp_path / "a", tmp_path / "b", ConvertOptions("comfyui", as_lora=as_lora), architecture=architecture)
    model = tiny_model(architecture)
    with caplog.at_level(logging.WARNING):
        patches = comfy.lora.load_lora(load_file(tmp_path / "b"), comfy.lora.model_lora_keys_unet(model.model, {}))
    assert "not loaded" not in caplog.text
    patched = model.clone()
    assert len(patched.add_patches(patches, 0.7)) == len(patches)
    expected = expected_weights(architecture, model, tensors, 0.7)
    assert set(patched.patches) == set(expected)
    for key, weight in expected.items():
        before = model.model.state_dict()[key]
        change = (weight - before).norm()
        assert float((patched_weight(patched, key) - weight).norm() / change) < 5e-6


VIDEO = {
    "lora of a video's kernel": LoRA(normal(8, 2), normal(2, 6, 3, 3, 3), alpha=1.0),
    "Tucker lora of a video's kernel": LoRA(
        normal(8, 2, 1, 1, 1), normal(2, 6, 1, 1, 1), normal(2, 2, 3, 3, 3), alpha=1.0
    ),
    "lokr of a video's kernel": LoKr(w1=normal(2, 2), w2=normal(4, 3, 3, 3, 3)),
    "Tucker loha of a video's kernel": LoHa(
        *(normal(2, 8), normal(2, 6)) * 2, normal(2, 2, 3, 3, 3), normal(2, 2, 3, 3, 3), alpha=1.0
    ),
}
FORMS = {case.name: case.make() for case in (*CASES, *ON_BASE)} | VIDEO
SHAPES = {case.name: case.shape for case in (*CASES, *ON_BASE)} | dict.fromkeys(VIDEO, (8, 6, 3, 3, 3))


@pytest.mark.parametrize("name", [name for name in FORMS if "swapped" not in name])
def test_what_stock_computes_is_known(name, pack):
    """By what its own adapters make of a weight: neither more nor less is refused a copy for them."""
    adapter = FORMS[name]
    assert computes(adapter) == (_error_of_stock(adapter, SHAPES[name]) < 1e-5)


def _error_of_stock(adapter: Adapter, shape: tuple[int, ...]) -> float:
    import comfy.lora

    prefix = "diffusion_model.x"
    tensors, _ = emit(AdapterSet({"x": adapter}, {"x": prefix}, FORMATS["comfyui"], {}))
    base = normal(*shape)
    patches = comfy.lora.load_lora(tensors, {prefix: f"{prefix}.weight"}, log_missing=False)
    stock = [(0.7, patch, 1.0, None, None) for patch in patches.values()]
    try:
        found = comfy.lora.calculate_weight(stock, base.clone(), f"{prefix}.weight")
    except RuntimeError:
        return float("inf")
    expected = adapter.add_to_(base.clone(), 0.7)
    return float((found - expected).norm() / (expected - base).norm())


@pytest.fixture(scope="module")
def file(server: Server) -> str:
    torch.manual_seed(2)
    tensors = musubi_file({"blocks.0.self_attn.q": (64, 64), "blocks.0.ffn.0": (160, 64)}, "lokr", random)
    save_file(tensors, server.base / "models" / "loras" / "to_convert.safetensors", {"ss_steps": "7"})
    return "to_convert.safetensors"


def workflow(file: str, **inputs: object) -> dict:
    settings = {"adapter": file, "to": "diffusers", "form": "lora", "rank": 0, "filename": "", "dtype": "as it is"}
    return {
        "convert": {"class_type": "LycoConvertAdapter", "inputs": settings | {"overwrite": False} | inputs},
        "inspect": {"class_type": "LycoInspectAdapter", "inputs": {"adapter": ["convert", 0]}},
    }


@pytest.mark.every_host
def test_the_node_saves_where_the_loaders_look_and_hands_on_the_name(server: Server, file: str):
    outputs = server.run(workflow(file))
    assert "to_convert_diffusers.safetensors (output/loras): 2 as LoRA" in outputs["convert"]["text"][0]
    assert "2 LoRA" in outputs["inspect"]["text"][0]
    assert "ss_steps = 7" in outputs["inspect"]["text"][0]
    saved = load_file(server.base / "output" / "loras" / "to_convert_diffusers.safetensors")
    assert "transformer.blocks.0.attn1.to_q.lora_A.weight" in saved
    listed = server.get("/object_info/LycoLoadAdapter")["LycoLoadAdapter"]["input"]["required"]["adapter"]
    assert "to_convert_diffusers.safetensors" in str(listed)


def test_nothing_is_overwritten_unasked(server: Server, file: str):
    server.run(workflow(file, filename="once"))
    with pytest.raises(WorkflowError, match=r"once\.safetensors: is there already"):
        server.run(workflow(file, filename="once", rank=1))
    outputs = server.run(workflow(file, filename="once", rank=1, overwrite=True))
    assert "2 approximated; relative error" in outputs["convert"]["text"][0]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        *((name, "expected a plain file name") for name in ("../up", "a/b", "a\\b", "/abs", ".hidden")),
        *((name, "which Windows and its disks refuse") for name in ("new\nline", "x:y", "what?")),
        ("con", "is that of a device on Windows"),
        ("漢" * 85, "takes 267 bytes, the disk has 255 for one"),
        ("\ud800", "has characters that no disk stores"),
    ],
)
def test_names_that_are_none(server: Server, file: str, name: str, reason: str):
    before = sorted(server.base.rglob("*.safetensors"))
    with pytest.raises(WorkflowError, match=reason):
        server.run(workflow(file, filename=name))
    assert sorted(server.base.rglob("*.safetensors")) == before


def test_a_name_that_models_loras_has(server: Server, file: str):
    with pytest.raises(WorkflowError, match=r"models/loras has a file of this name"):
        server.run(workflow(file, filename="to_convert"))
