"""What a linear module of a ComfyUI model multiplies by and adds, whatever form it is stored in and patched with."""

from __future__ import annotations

from collections.abc import Callable

import comfy.lora
import comfy.utils
import torch
from torch import Tensor

from ..protocols import ModelPatcher
from .weights import (
    dequantized,
    gguf_type,
    input_scale_of,
    is_readable,
    layout_of,
    linear_at,
    read_weight,
    requantized,
    scaled_weight,
)

__all__ = ["load_dtype", "probed_weight", "rounding_error", "whole_bias", "whole_weight"]


def load_dtype(patcher: ModelPatcher) -> torch.dtype | None:
    """The dtype in which a diffusion model computes; None for a model that does not say."""
    asked = getattr(patcher.model, "get_dtype_inference", None)
    return None if asked is None else asked()


def whole_weight(patcher: ModelPatcher, path: str) -> Tensor:
    """(out, in) of what a linear module multiplies its input by, other patches applied, on the load device.

    Where nobody can say what the stored numbers mean the module is probed: it gives the columns for the unit vectors.
    """
    key = f"{path}.weight"
    module = linear_at(patcher.model, path)
    weight = _unpatched(patcher, key)
    if not is_readable(patcher.model, key) or gguf_type(weight) is not None:
        return probed_weight(
            module.forward, module.in_features, load_dtype(patcher) or torch.float32, patcher.load_device
        )
    if layout_of(weight) is not None:
        values = dequantized(weight.to(patcher.load_device))
    else:
        values = scaled_weight(patcher.model, key, weight.to(patcher.load_device, torch.float32))
    if patches := patcher.patches.get(key):
        values = comfy.lora.calculate_weight(patches, values.to(torch.float32, copy=True), key)
    inputs = input_scale_of(module)
    return values if inputs is None else values * inputs.to(values.device, torch.float32)


def whole_bias(patcher: ModelPatcher, path: str) -> Tensor | None:
    """(out,), float32: what a linear module adds to its product, patches applied; None if it adds nothing."""
    key = f"{path}.bias"
    module = linear_at(patcher.model, path)
    if getattr(module, "bias", None) is None:
        return None
    if not is_readable(patcher.model, key) or gguf_type(module.bias) is not None:
        return module.forward(torch.zeros(1, module.in_features, device=patcher.load_device))[0].float()
    values = _unpatched(patcher, key).to(patcher.load_device, torch.float32, copy=True)
    patches = patcher.patches.get(key)
    return comfy.lora.calculate_weight(patches, values, key) if patches else values


def rounding_error(patcher: ModelPatcher, key: str) -> float:
    """Relative error of the change that a patched quantized weight keeps, rounded to the nearest."""
    weight = _unpatched(patcher, key)
    quantized = layout_of(weight) is not None
    before = dequantized(weight) if quantized else read_weight(patcher.model, key, weight.device)
    after = comfy.lora.calculate_weight(patcher.patches[key], before.clone(), key)
    kept = dequantized(requantized(weight, after)) if quantized else after.to(weight.dtype).float()
    return float((kept - after).norm() / (after - before).norm().clamp(min=1e-30))


def _unpatched(patcher: ModelPatcher, key: str) -> Tensor:
    """A weight as it was before ComfyUI patched it in place."""
    kept = patcher.backup.get(key)
    return comfy.utils.get_attr(patcher.model, key) if kept is None else kept.weight


def probed_weight(forward: Callable[[Tensor], Tensor], width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(out, width), float32: what a linear function multiplies its inputs by, probed with the unit vectors."""
    step = 1024
    zero = forward(torch.zeros(1, width, dtype=dtype, device=device)).float()
    columns = []
    for start in range(0, width, step):
        units = torch.zeros(min(step, width - start), width, dtype=dtype, device=device)
        units[:, start:].fill_diagonal_(1)
        columns.append(forward(units).float() - zero)
    return torch.cat(columns).t()
