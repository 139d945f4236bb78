"""The same adapters as the others have them: ComfyUI's own classes, LyCORIS's and PEFT's modules."""

from __future__ import annotations

import copy
import functools
import importlib.metadata
import importlib.util
import logging
from collections.abc import Callable
from typing import Any

import torch
from add_to import stock_adapter
from runtime_layers import lycoris_module, peft_layer
from torch import Tensor, nn

from gpu.comfyui import ComfyUI
from gpu.results import Results
from lyco_core.adapters import Adapter, DoRA

PEERS = {"LyCORIS": ("lycoris", "lycoris_lora"), "PEFT": ("peft", "peft")}
"""Who -> the package, and the distribution that has it."""
logging.getLogger("LyCORIS").disabled = True  # it tells, for each module, that W2 is full


@functools.cache
def versions(results: Results, comfyui: ComfyUI | None) -> dict[str, str]:
    """Who is here to be compared with, and in which version; who is not is said, once."""
    found = {"ComfyUI": comfyui.version} if comfyui else {}
    for who, (package, distribution) in PEERS.items():
        if importlib.util.find_spec(package) is None:
            results.say(f"not compared with {who}: pip install {distribution.replace('_', '-')}")
        elif results.works(who, lambda package=package: importlib.import_module(package)):
            found[who] = importlib.metadata.version(distribution)
    return found


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
