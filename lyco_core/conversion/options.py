"""The options of a conversion."""

from __future__ import annotations

import dataclasses

import torch

from ..approximate.options import Limits
from ..layouts import Layout
from ..selection import EVERYTHING, Selection

__all__ = ["ConvertOptions"]


@dataclasses.dataclass(frozen=True)
class ConvertOptions:
    """Which layout a conversion writes, and how; without `limits` and `dtype` it is exact."""

    to: Layout
    as_lora: bool = False
    """Every adapter as a LoRA: for tools that know nothing else."""
    limits: Limits | None = None
    """How small, or how exact, the best LoRAs are to be that are written instead."""
    dtype: torch.dtype | None = None
    """Storage dtype of what is written; by default each tensor's own, float32 for products."""
    selection: Selection = EVERYTHING
    """Which modules are written."""
    goes_on: bool = False
    """Whether it is a training here that reads them, and not Musubi Tuner, which of some families reads LoRA alone."""
