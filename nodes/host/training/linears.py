"""What of a ComfyUI model training knows by kind: its Linears, and the blocks that compute one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from torch import nn

from ....lyco_core.architectures import TrainedFamily
from ..protocols import BaseModel, Linear


def linears_of(model: nn.Module) -> dict[str, Linear]:
    """ComfyUI's Linears of every kind, by name; the quantized one is no nn.Linear."""
    return {
        name: cast("Linear", module)
        for name, module in model.named_modules()
        if hasattr(module, "weight_function") and hasattr(module, "in_features") and module.weight is not None
    }


def blocks_of(model: BaseModel, trained: TrainedFamily) -> Iterator[nn.Module]:
    """A model's blocks, in the order in which they run."""
    for name in trained.comfyui_blocks:
        yield from getattr(model.diffusion_model, name, ())
