"""A tour without downloads: a tiny Z-Image checkpoint, a Musubi-style LoKr, and what happens."""

from __future__ import annotations

import math
import os
import tempfile

import torch
from torch import Tensor

from .adapter_reader import load_adapter_set
from .inspection import describe_match, inspect_file
from .io import SafetensorsFile, TensorSpec, write_safetensors
from .model import Model

__all__ = ["run_demo"]

_WIDTH, _LAYERS = 64, 2
_MODULES = {
    "attention_to_q": (_WIDTH, _WIDTH),
    "attention_to_k": (_WIDTH, _WIDTH),
    "attention_to_v": (_WIDTH, _WIDTH),
    "attention_to_out_0": (_WIDTH, _WIDTH),
    "feed_forward_w1": (160, _WIDTH),
    "feed_forward_w2": (_WIDTH, 160),
    "feed_forward_w3": (160, _WIDTH),
}
_WEIGHTS = {
    "attention.qkv": (3 * _WIDTH, _WIDTH),
    "attention.out": (_WIDTH, _WIDTH),
    "feed_forward.w1": (160, _WIDTH),
    "feed_forward.w2": (_WIDTH, 160),
    "feed_forward.w3": (160, _WIDTH),
}


def run_demo() -> None:
    """Make the two files, inspect, place and apply, and print what a person wants to know."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        model, adapter = os.path.join(folder, "tiny_z_image.safetensors"), os.path.join(folder, "my_lokr.safetensors")
        _save(model, _checkpoint())
        _save(adapter, _lokr(), {"ss_network_module": "networks.lokr", "ss_network_args": '{"factor": "4"}'})

        _say("1. What is this file?   lyco inspect my_lokr.safetensors --model tiny_z_image.safetensors")
        print("\n".join(f"   {line}" for line in inspect_file(adapter, model).lines()))

        _say("2. Where does it go?   Musubi trained q, k and v apart; ComfyUI keeps them in one weight.")
        placement = Model.of_file(model).place(load_adapter_set(adapter)).require_complete()
        for piece in placement.placed[:4]:
            rows = "all rows" if piece.rows is None else f"rows {piece.rows[0]:>3}-{piece.rows[1]}"
            print(f"   {piece.module_path:<28} -> {piece.key}, {rows}")
        print(f"   … {describe_match(placement)[0]}; nothing is left out")

        _say("3. Apply it, in place, without ever building the change as a whole:")
        with SafetensorsFile(model) as file:
            patched = {key: file.tensor(key) for key in file.header.tensors}
            before = {key: tensor.clone() for key, tensor in patched.items()}
        placement.apply_(patched)
        for key in list(patched)[:5]:
            change = _norm(patched[key] - before[key]) / _norm(before[key])
            print(f"   {key:<42} changed by {100 * change:5.2f} % of its norm")

        _say("4. Take it away again (strength -1):")
        placement.apply_(patched, -1.0)
        worst = max(float((patched[key] - before[key]).abs().max()) for key in patched)
        print(f"   largest difference from the model that we began with: {worst:.1e} (float32 rounding)")


def _checkpoint() -> dict[str, Tensor]:
    return {
        f"layers.{n}.{name}.weight": torch.randn(shape) / 8 for n in range(_LAYERS) for name, shape in _WEIGHTS.items()
    }


def _lokr(factor: int = 4, rank: int = 2) -> dict[str, Tensor]:
    """What Musubi Tuner writes for `networks.lokr` with network_dim 2, network_alpha 1, factor 4."""
    tensors: dict[str, Tensor] = {}
    for n in range(_LAYERS):
        for name, (rows, columns) in _MODULES.items():
            key = f"lora_unet_layers_{n}_{name}"
            tensors[f"{key}.lokr_w1"] = torch.randn(factor, factor) / 4
            tensors[f"{key}.lokr_w2_a"] = torch.randn(rows // factor, rank) / 8
            tensors[f"{key}.lokr_w2_b"] = torch.randn(rank, columns // factor) / 8
            tensors[f"{key}.alpha"] = torch.tensor(1.0)
    return {key: tensor.to(torch.bfloat16) for key, tensor in tensors.items()}


def _save(path: str, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    specs = [TensorSpec(key, tuple(t.shape), t.dtype) for key, t in tensors.items()]
    write_safetensors(path, specs, tensors.values(), metadata)


def _norm(tensor: Tensor) -> float:
    return math.sqrt(float(tensor.square().sum()))


def _say(text: str) -> None:
    print(f"\n{text}")
