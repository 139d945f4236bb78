"""Weights rounded to float8 while a model trains, as Musubi Tuner's `fp8_base` and `fp8_scaled` have them."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ....lyco_core.errors import TrainError
from ..protocols import Linear, Reorder

FLOAT8 = torch.float8_e4m3fn
LARGEST = torch.finfo(FLOAT8).max
WIDE = (torch.float32, torch.bfloat16, torch.float16)
ROWS = 1024
"""Rows that are rounded at once, which bounds what it takes beside the weight."""


class RowScale:
    """A `weight_function`: ComfyUI passes every weight through it once it is cast to what the model computes in."""

    def __init__(self, scale: Tensor) -> None:
        self.scale = scale

    def __call__(self, weight: Tensor) -> Tensor:
        return weight.mul_(self.scale.to(weight.device))  # in float32, rounded once; the weight is a copy


def rounds(name: str, module: Linear) -> bool:
    """Whether a block's module is rounded, as in Musubi: no norms, no modulations, nothing that is small already."""
    weight = module.weight
    plain = type(weight) in (Tensor, nn.Parameter) and weight.dim() == 2 and weight.dtype in WIDE
    return plain and not any(part in name for part in ("norm", "modulation"))


def float8_size(module: Linear, *, scaled: bool) -> int:
    """How many bytes the rounded weight takes."""
    return module.weight.numel() + (4 * module.out_features if scaled else 0)


@contextmanager
def in_float8(modules: Iterable[tuple[str, Linear]], device: torch.device, *, scaled: bool) -> Generator[None]:
    """Inside, the modules multiply with their weights rounded to float8, which lie where the weights lay.

    Args:
        device: where they are rounded.

    Raises:
        TrainError: a weight has numbers that float8 has not.
    """
    before: list[tuple[Linear, Tensor, list[Reorder], bool | None]] = []
    try:
        for name, module in modules:
            own, functions = module.weight, module.weight_function
            values, scale = _rounded(name, own, device, scaled=scaled)
            before.append((module, own, functions, module.__dict__.get("comfy_cast_weights")))
            module.weight = nn.Parameter(values.to(own.device), requires_grad=False)
            module.weight_function = [*([RowScale(scale)] if scaled else ()), *functions]
            module.comfy_cast_weights = True
        yield
    finally:
        for module, own, functions, casts in before:
            module.weight, module.weight_function = own, functions
            if casts is None:
                del module.comfy_cast_weights
            else:
                module.comfy_cast_weights = casts


@torch.no_grad()
def _rounded(name: str, weight: Tensor, device: torch.device, *, scaled: bool) -> tuple[Tensor, Tensor]:
    """The weight in float8, and the scale of each of its rows, (out, 1)."""
    values = torch.empty(weight.shape, dtype=FLOAT8, device=device)
    scales = torch.ones(weight.shape[0], 1, device=device)
    for start in range(0, weight.shape[0], ROWS):
        rows = slice(start, start + ROWS)
        band = weight[rows].to(device).to(torch.float32)  # widened there: half as much is copied
        if scaled:
            scales[rows] = (band.abs().amax(1, keepdim=True) / LARGEST).clamp_(min=1e-12)
            band = (band / scales[rows]).clamp_(-LARGEST, LARGEST)
        elif bool((band.abs() > LARGEST).any()):
            raise TrainError(f"{name}: has numbers above {LARGEST:g}, which float8 has not; set fp8_scaled to true")
        values[rows] = band.to(FLOAT8)
    return values, scales
