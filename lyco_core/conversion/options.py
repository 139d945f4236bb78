"""What a conversion is asked for."""

from __future__ import annotations

import dataclasses

import torch

from ..approximate.options import Asked
from ..layouts import Layout

__all__ = ["Options"]


@dataclasses.dataclass(frozen=True)
class Options:
    """What a conversion is to make; without `asked` and `dtype` it is exact."""

    to: Layout
    as_lora: bool = False
    """Every adapter as a LoRA: for tools that know nothing else."""
    asked: Asked | None = None
    """How small, or how exact, the best LoRAs are to be that are written instead."""
    dtype: torch.dtype | None = None
    """Storage dtype of what is written; by default each tensor's own, float32 for products."""
