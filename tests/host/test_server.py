"""A running ComfyUI with the pack in custom_nodes, spoken to over HTTP as any client does."""

import pickle

import pytest
import torch
from lyco_testing.comfy import Server, WorkflowError
from lyco_testing.nodes import adapters_of, told
from lyco_testing.tables import lokr, random
from lyco_testing.tiny_wan import deltas, latents, wan_adapter, wan_checkpoint, workflow
from safetensors.torch import save_file


@pytest.fixture(scope="module")
def files(server: Server) -> Server:
    base, tensors = wan_checkpoint(), wan_adapter()
    merged = {
        k: (v.double() + 0.8 * deltas(tensors)[k]).float() if k in deltas(tensors) else v for k, v in base.items()
    }
    models, loras = server.base / "models" / "diffusion_models", server.base / "models" / "loras"
    save_file(base, models / "wan.safetensors")
    save_file(merged, models / "wan_by_hand.safetensors")
    save_file(tensors, loras / "lokr.safetensors", {"ss_network_module": "networks.lokr"})
    other = {k.replace("blocks_1", "blocks_9"): v for k, v in tensors.items()}
    save_file(other, loras / "half.safetensors")
    save_file({"nonsense": torch.ones(1)}, loras / "nonsense.safetensors")
    save_file(lokr("lora_unet_double_blocks_0_img_attn_qkv", 192, 64, random), loras / "flux.safetensors")
    save_file(lokr("lora_unet_blocks_0_ffn_0", 160, 64, random), loras / "narrow.safetensors")
    broken = {key: (tensor * float("nan") if key.endswith("lokr_w1") else tensor) for key, tensor in tensors.items()}
    save_file(broken, loras / "nan.safetensors")
    (loras / "pickle.safetensors").write_bytes(pickle.dumps({"a": 1}, protocol=2))
    (loras / "empty.safetensors").write_bytes(b"")
    (loras / "cut.safetensors").write_bytes((loras / "lokr.safetensors").read_bytes()[:-100])
    return server


@pytest.mark.every_host
def test_nodes_are_there(server: Server):
    known = server.get("/object_info")
    for name, title in {"LycoLoadAdapter": "Load LoHa/LoKr", "LycoInspectAdapter": "Inspect Adapter"}.items():
        assert known[name]["display_name"] == title
        assert known[name]["python_module"] == "custom_nodes.comfyui-lyco"
    assert known["LycoLoadAdapter"]["output"] == ["MODEL", "CLIP", "STRING"]


@pytest.mark.every_host
def test_the_page_is_told_which_inputs_choose_an_adapter(files: Server):
    """All whose list is that of models/loras, but for what a training starts from: its card is of the training."""
    known = told(files.get("/object_info"))
    listed = {
        node: [
            name
            for part in ("required", "optional")
            for name, (kind, *options) in info["input"].get(part, {}).items()
            if "lokr.safetensors" in (kind if isinstance(kind, list) else (options or [{}])[0].get("options", ()))
        ]
        for node, info in known.items()
    }
    assert listed.pop("LycoTrainAdapter") == ["network_weights"]
    assert {node: names for node, names in adapters_of(files).items() if node in listed} == listed
    assert listed["LycoLoadAdapters"] == [f"adapter_{row}" for row in range(1, 13)]


@pytest.mark.every_host
def test_sampling_equals_weights_changed_by_hand(files: Server):
    plain = latents(files, files.run(workflow("wan.safetensors")))
    by_hand = latents(files, files.run(workflow("wan_by_hand.safetensors")))
    outputs = files.run(workflow("wan.safetensors", "lokr.safetensors"))
    found = latents(files, outputs)
    change = (by_hand - plain).norm()
    assert change > 0.02 * plain.norm()
    assert (found - by_hand).norm() < 1e-5 * change
    assert "20 of 20 modules on 20 weights" in outputs["show"]["text"][0]


def test_strengths_one_after_another_leave_nothing_behind(files: Server):
    first = latents(files, files.run(workflow("wan.safetensors", "lokr.safetensors")))
    files.run(workflow("wan.safetensors", "lokr.safetensors", strength=-1.5))
    plain = latents(files, files.run(workflow("wan.safetensors", "lokr.safetensors", strength=0)))
    again = latents(files, files.run(workflow("wan.safetensors", "lokr.safetensors")))
    assert torch.equal(first, again)
    assert torch.equal(plain, latents(files, files.run(workflow("wan.safetensors"))))


REFUSALS = {
    "half.safetensors": "half.safetensors: 10 of 20 modules are not in the model (lora_unet_blocks_9_",
    "nonsense.safetensors": "nonsense.safetensors: 1 keys belong to no adapter that is known here (nonsense)",
    "flux.safetensors": "flux.safetensors: is an adapter for FLUX.1, the model is Wan 2.1/2.2",
    "narrow.safetensors": "blocks.0.ffn.0: the model's weight is [320, 128], the adapter's [160, 64]",
    "nan.safetensors": "nan.safetensors: lora_unet_blocks_0_",
    "pickle.safetensors": "pickle.safetensors: is a pickle",
    "empty.safetensors": "empty.safetensors: is empty",
    "cut.safetensors": "cut.safetensors: is cut off",
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_does_not_fit_is_refused_with_the_reason(name: str, files: Server):
    with pytest.raises(WorkflowError) as caught:
        files.run(workflow("wan.safetensors", name))
    title = files.get("/object_info/LycoLoadAdapter")["LycoLoadAdapter"]["display_name"]
    assert str(caught.value).startswith(f"{title}: {name}: ")
    assert REFUSALS[name] in str(caught.value)
    assert "\n" not in str(caught.value).strip()
    files.run(workflow("wan.safetensors", "lokr.safetensors"))


def test_a_partial_match_may_be_asked_for(files: Server):
    outputs = files.run(workflow("wan.safetensors", "half.safetensors", on_partial_match="warn"))
    assert "10 of 20 modules on 10 weights" in outputs["show"]["text"][0]
    assert "left out: 10 of 20 modules are not in the model" in outputs["show"]["text"][0]
    assert "half.safetensors: 10 of 20 modules" in (files.base / "server.log").read_text()


@pytest.mark.parametrize("path", ["../../secret.safetensors", "/etc/passwd", "..\\x.safetensors", ""])
def test_a_path_outside_the_models_folder(path: str, files: Server):
    (files.base / "secret.safetensors").write_bytes((files.base / "models/loras/lokr.safetensors").read_bytes())
    # ComfyUI 0.28 refuses it by itself; 0.3.64 leaves it to the node.
    with pytest.raises(WorkflowError, match=r"not in list|there is no such file in models/loras"):
        files.run(workflow("wan.safetensors", path))


@pytest.mark.every_host
def test_inspect_node(files: Server):
    nodes = {
        "model": {"class_type": "UNETLoader", "inputs": {"unet_name": "wan.safetensors", "weight_dtype": "default"}},
        "inspect": {
            "class_type": "LycoInspectAdapter",
            "inputs": {"adapter": "lokr.safetensors", "model": ["model", 0]},
        },
    }
    text = files.run(nodes)["inspect"]["text"][0]
    assert "architecture  Wan 2.1/2.2" in text
    assert "20 of 20 modules on 20 weights" in text
