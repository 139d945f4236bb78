"""ComfyUI's own Linear in a form of stored weights, and the pack's seat in it."""

from __future__ import annotations

import functools
from typing import Any

import torch
from lyco_testing import quantized_models as models

from gpu.comfyui import ComfyUI, widened
from lyco_core.adapters import Adapter

QUANTIZED = ("fp8_scaled", "int8_convrot", "nvfp4", "mxfp8")


@functools.lru_cache(1)
def _stored(form: str, size: int) -> dict[str, torch.Tensor]:
    """A weight's tensors in a form; on the CPU that takes longer than all that is timed."""
    return models.stored({"l.weight": models.normal(7, size, size) / size**0.5}, ["l"], form)[0]


def quantized_linear(form: str, size: int, dtype: torch.dtype) -> Any:
    """One of size x size on the device, as a model's loader makes it."""
    import comfy.model_management as management
    import comfy.ops

    there = management.get_torch_device()
    operations = comfy.ops.mixed_precision_ops({}, dtype, disabled=set(widened()))
    holder = torch.nn.Module()
    holder.l = operations.Linear(size, size, bias=False, device="cpu", dtype=dtype)
    holder.load_state_dict(_stored(form, size), strict=False)
    return holder.to(there).l.eval().requires_grad_(False)


def seat(comfyui: ComfyUI, linear: Any, adapter: Adapter) -> None:
    """Let an adapter of ours, which adds, act beside the weight."""
    kinds, beside = comfyui.part("lyco_core.adapters"), comfyui.part("lyco_core.beside")
    own = getattr(kinds, type(adapter).__name__)(**adapter.tensors, alpha=adapter.alpha)
    shape, device = (linear.out_features, linear.in_features), linear.weight.device

    def read(start: int, stop: int) -> torch.Tensor:
        raise AssertionError(f"rows {start}:{stop} were read, and what adds needs none")

    effects = beside.settled([beside.Part(own, 1.0)], read, shape, device)
    comfyui.part("nodes.host.model.beside.seat").Seat("linear", linear, effects, None)
