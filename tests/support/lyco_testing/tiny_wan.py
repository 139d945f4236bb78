"""A tiny Wan that ComfyUI detects from its file, a Musubi LoKr for it, and the workflow that samples it."""

import json
from pathlib import Path

import torch

from .comfy import Server
from .comfy_models import BLOCKS
from .tables import musubi_file, random, targets

WIDTH = 128  # ComfyUI's detection gives Wan one head for each 128
TEXT = 4096


def wan_checkpoint(width: int = WIDTH, ffn: int = 320, blocks: int = BLOCKS) -> dict[str, torch.Tensor]:
    """The weights of a Wan that ComfyUI detects: its own module tree, tiny."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator) / max(shape[-1], 8) ** 0.5

    linear = {
        "text_embedding.0": (width, TEXT),
        "text_embedding.2": (width, width),
        "time_embedding.0": (width, 256),
        "time_embedding.2": (width, width),
        "time_projection.1": (6 * width, width),
        "head.head": (64, width),
    }
    tensors = {"head.modulation": normal(1, 2, width), "patch_embedding.weight": normal(width, 16, 1, 2, 2)}
    tensors["patch_embedding.bias"] = normal(width)
    for n in range(blocks):
        block = f"blocks.{n}"
        for attention in ("self_attn", "cross_attn"):
            linear |= {f"{block}.{attention}.{x}": (width, width) for x in "qkvo"}
            tensors |= {f"{block}.{attention}.norm_{x}.weight": 1 + normal(width) for x in "qk"}
        linear |= {f"{block}.ffn.0": (ffn, width), f"{block}.ffn.2": (width, ffn)}
        tensors[f"{block}.modulation"] = normal(1, 6, width)
        tensors |= {f"{block}.norm3.weight": 1 + normal(width), f"{block}.norm3.bias": normal(width)}
    for name, shape in linear.items():
        tensors |= {f"{name}.weight": normal(*shape), f"{name}.bias": normal(shape[0])}
    return tensors


def scaled_wan(path: Path, block: str) -> dict[str, torch.Tensor]:
    """A Wan whose `block` is float8 under one scale, as ComfyUI 0.28 writes it; its weights as numbers."""
    tensors = wan_checkpoint()
    numbers = dict(tensors)
    for key in [k for k in tensors if k.startswith(block) and tensors[k].dim() == 2]:
        scale = tensors[key].abs().max() / 448
        tensors[key] = (tensors[key] / scale).to(torch.float8_e4m3fn)
        numbers[key] = tensors[key].float() * scale
        stem = key.removesuffix("weight")
        tensors[f"{stem}weight_scale"] = scale
        marker = json.dumps({"format": "float8_e4m3fn"}).encode()
        tensors[f"{stem}comfy_quant"] = torch.tensor(list(marker), dtype=torch.uint8)
    _save(tensors, path)
    return numbers


def int8_wan(path: Path) -> None:
    """A Wan whose blocks are int8, a scale for each row, as ComfyUI 0.33 writes it."""
    tensors = wan_checkpoint()
    for key in [k for k in tensors if k.startswith("blocks.") and k.endswith(".weight") and tensors[k].dim() == 2]:
        stem, weight = key.removesuffix("weight"), tensors[key]
        scale = weight.abs().amax(1, keepdim=True) / 127
        tensors[key], tensors[f"{stem}weight_scale"] = (weight / scale).round().to(torch.int8), scale
        marker = json.dumps({"format": "int8_tensorwise"}).encode()
        tensors[f"{stem}comfy_quant"] = torch.tensor(list(marker), dtype=torch.uint8)
    _save(tensors, path)


def _save(tensors: dict[str, torch.Tensor], path: Path) -> None:
    from safetensors.torch import save_file  # benchmarks have these models too, without it

    save_file(tensors, path)


def wan_adapter(algorithm: str = "lokr") -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    names = [path for path in targets("wan21_t2v_1_3b") if int(path.split(".")[1]) < BLOCKS]
    shapes = {"ffn.0": (320, WIDTH), "ffn.2": (WIDTH, 320)}
    modules = {path: shapes.get(path.split(".", 2)[2], (WIDTH, WIDTH)) for path in names}
    return {key: tensor / 3 for key, tensor in musubi_file(modules, algorithm, random).items()}


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
    from safetensors.torch import load_file

    saved = outputs["save"]["latents"][0]
    return load_file(server.base / "output" / saved["subfolder"] / saved["filename"])["latent_tensor"]
