"""The same adapters as the others have them: ComfyUI's own classes, LyCORIS's and PEFT's modules."""

from __future__ import annotations

import contextlib
import copy
import importlib.metadata
import logging
from collections.abc import Callable
from typing import Any

import torch
from add_to import stock_adapter
from runtime_layers import lycoris_module, peft_layer
from torch import Tensor, nn

from gpu.comfyui import ComfyUI
from lyco_core.adapters import Adapter, DoRA

NAMES = {"LyCORIS": "lycoris_lora", "PEFT": "peft"}
"""Who -> the distribution that has it."""
logging.getLogger("LyCORIS").setLevel(logging.ERROR)  # it tells, for each module, that W2 is full


def versions(comfyui: ComfyUI | None) -> dict[str, str]:
    """Who is here to be compared with, and in which version."""
    found = {"ComfyUI": comfyui.version} if comfyui else {}
    for who, name in NAMES.items():
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[who] = importlib.metadata.version(name)
    return found


def absent(comfyui: ComfyUI | None) -> list[str]:
    """Who is not."""
    return [who for who in ("ComfyUI", *NAMES) if who not in versions(comfyui)]


def stock(adapter: Adapter) -> Any:
    """ComfyUI's own adapter of the same tensors."""
    if not isinstance(adapter, DoRA):
        return stock_adapter(adapter)
    from comfy.weight_adapter import LoRAAdapter

    t = adapter.inner.tensors
    return LoRAAdapter(set(), (t["up"], t["down"], adapter.alpha, None, adapter.magnitude, None))


def twin(linear: nn.Linear) -> nn.Linear:
    """A module of its own with the same weight in memory."""
    return copy.deepcopy(linear, {id(p): p for p in linear.parameters()})


def patches(adapter: Adapter, weight: Tensor, here: dict[str, str]) -> dict[str, Callable[[], object]]:
    """Who -> what adds the adapter to `weight` in place, a little."""
    found: dict[str, Callable[[], object]] = {}
    if "ComfyUI" in here:
        own = stock(adapter)
        found["ComfyUI"] = lambda: own.calculate_weight(weight, "k", 1e-4, 1.0, None, lambda t: t, torch.float32)
    if isinstance(adapter, DoRA):  # theirs go with a module that they replace
        return found
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device=weight.device, dtype=weight.dtype)
    if "LyCORIS" in here:
        module = lycoris_module(adapter, linear).to(weight.device, weight.dtype)
        found["LyCORIS"] = lambda: weight.add_(module.get_diff_weight(1e-4)[0])
    if "PEFT" in here:
        layer = peft_layer(adapter, linear).to(weight.device, weight.dtype)
        found["PEFT"] = lambda: weight.add_(layer.get_delta_weight("default"))
    return found


def layers(adapter: Adapter, linear: nn.Linear, here: dict[str, str]) -> dict[str, nn.Module]:
    """Who -> a Linear of the same weight with the adapter beside it."""
    found: dict[str, nn.Module] = {}
    device, dtype = linear.weight.device, linear.weight.dtype
    if isinstance(adapter, DoRA):  # ComfyUI's bypass leaves the magnitude out
        return found
    if "ComfyUI" in here:
        found["ComfyUI"] = bypassed(twin(linear), adapter)
    if "LyCORIS" in here:
        own = twin(linear)
        lycoris_module(adapter, own).to(device, dtype).eval().apply_to()
        found["LyCORIS"] = own
    if "PEFT" in here:
        found["PEFT"] = peft_layer(adapter, twin(linear)).to(device, dtype)
    return found


def bypassed(module: Any, adapter: Adapter) -> Any:
    """ComfyUI's own way of leaving a weight alone."""
    from comfy.weight_adapter.bypass import BypassForwardHook

    device = module.weight.device
    BypassForwardHook(module, stock(adapter.to(device, torch.bfloat16)), multiplier=1.0).inject()
    return module
