"""What a conversion is asked for, and what it made."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping

import torch
from torch import Tensor

from .adapter_set import AdapterSet
from .adapters import Adapter
from .approximate.options import Asked
from .approximate.report import Module, Report
from .layouts import Layout

__all__ = ["Conversion", "Converted", "Options"]


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


@dataclasses.dataclass(frozen=True)
class Converted:
    """One module of the new file."""

    module_path: str
    sources: tuple[str, ...]
    """Module paths that it was made from."""
    adapter: Adapter
    how: str
    """`renamed`, `cut`, `stacked`, `as LoRA`, `as LoHa` or `approximated`."""
    measured: Module | None = None
    """Its error, where an approximation or another dtype was asked for."""


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What a conversion made, and what it says about it."""

    source: AdapterSet
    modules: tuple[Converted, ...]
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]

    @property
    def report(self) -> Report | None:
        """The errors, where an approximation or another dtype was asked for."""
        measured = tuple(m.measured for m in self.modules if m.measured is not None)
        return Report(measured) if measured else None

    def summary(self) -> str:
        """How the modules came to be, in one line."""
        counts = Counter(m.how for m in self.modules)
        text = ", ".join(f"{count} {how}" for how, count in counts.most_common())
        if (report := self.report) is not None:
            worst = report.worst[0]
            text += f"; relative error {report.error:.2e}, at worst {worst.error:.2e} ({worst.name})"
        return "; left out: ".join([text, *self.source.left_out])
