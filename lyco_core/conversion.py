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
from .errors import LycoError
from .layouts import Layout

__all__ = ["Conversion", "Converted", "Options"]


@dataclasses.dataclass(frozen=True)
class Options:
    """What a conversion is to make; without `rank`, `max_error` and `dtype` it is exact."""

    to: Layout
    as_lora: bool = False
    """Every adapter as a LoRA: for tools that know nothing else."""
    rank: int | None = None
    """The best LoRAs of at most this rank."""
    max_error: float | None = None
    """The smallest LoRAs whose relative error is at most this."""
    dtype: torch.dtype | None = None
    """Storage dtype of what is written; by default each tensor's own, float32 for products."""

    def __post_init__(self) -> None:
        if self.rank is not None and self.rank < 1:
            raise LycoError(f"rank is {self.rank}, expected at least 1")
        if self.max_error is not None and not 0 < self.max_error < 1:
            raise LycoError(f"the error is {self.max_error:g}, expected a number between 0 and 1")

    @property
    def asked(self) -> Asked | None:
        """The approximation that is asked for by name, if one is."""
        return None if self.rank is None and self.max_error is None else Asked(self.rank, self.max_error)


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
