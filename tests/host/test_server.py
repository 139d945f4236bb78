"""A running ComfyUI with the pack in custom_nodes, spoken to over HTTP as any client does."""

import pickle

import pytest
import torch
from lyco_testing.comfy import Server, WorkflowError
from lyco_testing.comfy_models import BLOCKS
from lyco_testing.tables import lokr, musubi_file, random, targets
from safetensors.torch import load_file, save_file

WIDTH = 128  # ComfyUI's detection gives Wan one head for each 128
TEXT = 4096


def wan_checkpoint() -> dict[str, torch.Tensor]:
    """The weights of a Wan that ComfyUI detects: its own module tree, tiny."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator) / max(shape[-1], 8) ** 0.5

    linear = {
        "text_embedding.0": (WIDTH, TEXT),
        "text_embedding.2": (WIDTH, WIDTH),
        "time_embedding.0": (WIDTH, 256),
        "time_embedding.2": (WIDTH, WIDTH),
        "time_projection.1": (6 * WIDTH, WIDTH),
        "head.head": (64, WIDTH),
    }
    tensors = {"head.modulation": normal(1, 2, WIDTH), "patch_embedding.weight": normal(WIDTH, 16, 1, 2, 2)}
    tensors["patch_embedding.bias"] = normal(WIDTH)
    for n in range(BLOCKS):
        block = f"blocks.{n}"
        for attention in ("self_attn", "cross_attn"):
            linear |= {f"{block}.{attention}.{x}": (WIDTH, WIDTH) for x in "qkvo"}
            tensors |= {f"{block}.{attention}.norm_{x}.weight": 1 + normal(WIDTH) for x in "qk"}
        linear |= {f"{block}.ffn.0": (320, WIDTH), f"{block}.ffn.2": (WIDTH, 320)}
        tensors[f"{block}.modulation"] = normal(1, 6, WIDTH)
        tensors |= {f"{block}.norm3.weight": 1 + normal(WIDTH), f"{block}.norm3.bias": normal(WIDTH)}
    for name, shape in linear.items():
        tensors |= {f"{name}.weight": normal(*shape), f"{name}.bias": normal(shape[0])}
    return tensors


def adapter() -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    names = [path for path in targets("wan21_t2v_1_3b") if int(path.split(".")[1]) < BLOCKS]
    shapes = {"ffn.0": (320, WIDTH), "ffn.2": (WIDTH, 320)}
    modules = {path: shapes.get(path.split(".", 2)[2], (WIDTH, WIDTH)) for path in names}
    return {key: tensor / 3 for key, tensor in musubi_file(modules, "lokr", random).items()}


def deltas(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """kron(w1, w2_a @ w2_b) * alpha / rank of each module, by ComfyUI's weight key."""
    found: dict[str, torch.Tensor] = {}
    for key in tensors:
        if key.endswith(".lokr_w1"):
            name = key.removesuffix(".lokr_w1")
            w1, a, b, alpha = (tensors[f"{name}.{x}"].double() for x in ("lokr_w1", "lokr_w2_a", "lokr_w2_b", "alpha"))
            number, module = name.removeprefix("lora_unet_blocks_").split("_", 1)
            module = module.replace("attn_", "attn.").replace("ffn_", "ffn.")
            found[f"blocks.{number}.{module}.weight"] = torch.kron(w1, a @ b) * alpha / a.shape[1]
    return found


@pytest.fixture(scope="module")
def files(server: Server) -> Server:
    base, tensors = wan_checkpoint(), adapter()
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


def workflow(model: str, adapter: str | None = None, **inputs: object) -> dict[str, dict[str, object]]:
    nodes: dict[str, dict[str, object]] = {
        "model": {"class_type": "UNETLoader", "inputs": {"unet_name": model, "weight_dtype": "default"}},
        "text": {"class_type": "ProbeConditioning", "inputs": {"width": TEXT, "seed": 1}},
        "nothing": {"class_type": "ProbeConditioning", "inputs": {"width": TEXT, "seed": 2}},
        "latent": {
            "class_type": "EmptyHunyuanLatentVideo",
            "inputs": {"width": 64, "height": 64, "length": 5, "batch_size": 1},
        },
        "sample": {
            "class_type": "KSampler",
            "inputs": {
                "model": ["model", 0],
                "positive": ["text", 0],
                "negative": ["nothing", 0],
                "latent_image": ["latent", 0],
                "seed": 5,
                "steps": 3,
                "cfg": 2.0,
                "sampler_name": "euler",
                "scheduler": "simple",
                "denoise": 1.0,
            },
        },
        "save": {"class_type": "SaveLatent", "inputs": {"samples": ["sample", 0], "filename_prefix": "latents/probe"}},
    }
    if adapter is not None:
        settings = {"model": ["model", 0], "adapter": adapter, "strength": 0.8, "on_partial_match": "error"}
        nodes["adapter"] = {"class_type": "LycoLoadAdapter", "inputs": settings | inputs}
        nodes["sample"]["inputs"]["model"] = ["adapter", 0]
        nodes["show"] = {"class_type": "PreviewAny", "inputs": {"source": ["adapter", 2]}}
    return nodes


def latents(server: Server, outputs: dict) -> torch.Tensor:
    saved = outputs["save"]["latents"][0]
    return load_file(server.base / "output" / saved["subfolder"] / saved["filename"])["latent_tensor"]


def test_nodes_are_there(server: Server):
    known = server.get("/object_info")
    for name, title in {"LycoLoadAdapter": "Load LoHa/LoKr", "LycoInspectAdapter": "Inspect Adapter"}.items():
        assert known[name]["display_name"] == title
        assert known[name]["python_module"] == "custom_nodes.comfyui-lyco"
    assert known["LycoLoadAdapter"]["output"] == ["MODEL", "CLIP", "STRING"]


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
    "nonsense.safetensors": "nonsense.safetensors: 1 keys belong to no LoRA, LoHa or LoKr (nonsense)",
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
