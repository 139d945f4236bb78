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
        found: list[nn.Module] = [model.diffusion_model]
        for part in name.split("."):
            found = [child for module in found for child in _children(module, part)]
        yield from (block for blocks in found for block in blocks.children())


def _children(module: nn.Module, name: str) -> list[nn.Module]:
    """The modules of that name in `module`, one at most; `*`: all that it holds."""
    if name == "*":
        return list(module.children())
    child = getattr(module, name, None)
    return [child] if isinstance(child, nn.Module) else []
