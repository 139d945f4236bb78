"""How far approximations are from what they stand for: each measured as it is stored, and all together."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from typing import Any

from torch import Tensor

from ..adapters import ALGORITHMS, Adapter, Additive, OnBase, bare
from ..devices import norm
from ..quantized.reading import bands
from ..scratch import scratch
from ..text import counted

__all__ = ["Measured", "Report", "relative_error"]


def relative_error(made: Adapter, delta: Tensor) -> tuple[float, float]:
    """(‖ΔW' - ΔW‖ / ‖ΔW‖, ‖ΔW‖) in the Frobenius norm.

    Args:
        made: the approximation, whose change is ΔW'.
        delta: ΔW, float32; overwritten by the difference.
    """
    whole = norm(delta)
    made.to(delta.device).add_to_(delta, -1.0)
    return norm(delta) / (whole or 1.0), whole


@dataclasses.dataclass(frozen=True)
class Measured:
    """One module's approximation, and how far it is from what it stands for."""

    name: str
    algorithm: str
    rank: int | None
    error: float
    """‖ΔW' - ΔW‖ / ‖ΔW‖, computed from what is stored."""
    norm: float
    """‖ΔW‖."""

    @classmethod
    def of(cls, name: str, made: Adapter, exact: Adapter | Tensor) -> Measured:
        """Compute the error of an approximation; DoRAs are compared by what they sit on.

        Args:
            made: the approximation, as it is stored.
            exact: what it stands for: an adapter, or ΔW itself, which is overwritten.

        Raises:
            AdapterError: `exact` has no ΔW without the weight.
        """
        made = bare(made)
        found = relative_error(made, exact) if isinstance(exact, Tensor) else _by_bands(made, bare(exact))
        return cls(name, made.algorithm, made.rank, *found)


def _by_bands(made: Adapter, exact: Adapter) -> tuple[float, float]:
    """`relative_error` of two adapters; of ΔW no more than a few rows are in memory."""
    for adapter in (exact, made):
        if isinstance(adapter, OnBase):
            adapter.refuse("delta weight")
    assert isinstance(made, Additive) and isinstance(exact, Additive)
    rows, columns = exact.flat_shape
    device = next(iter(exact.tensors.values())).device
    made = made.to(device)
    sizes: list[tuple[float, float]] = []
    for start, stop in bands(rows, columns, 1, device):
        band = exact.add_band_(scratch("measured", (stop - start, columns), device=device).zero_(), start)
        sizes.append((norm(band), norm(made.add_band_(band, start, -1.0))))
    whole, wrong = (math.hypot(*parts) for parts in zip(*sizes, strict=True))
    return wrong / (whole or 1.0), whole


@dataclasses.dataclass(frozen=True)
class Report:
    """The errors of all modules of a file, and how many there are beside them that have none."""

    modules: tuple[Measured, ...]
    exact: int = 0
    """Differences of norms and biases, kept as they are; modules of a resized file that were small enough."""
    unchanged: int = 0
    """Weights that are equal in both checkpoints."""

    @property
    def error(self) -> float:
        """The relative error of all modules together."""
        wrong = math.hypot(*(m.error * m.norm for m in self.modules))
        return wrong / (math.hypot(*(m.norm for m in self.modules)) or 1.0)

    @property
    def worst(self) -> list[Measured]:
        """The modules, those with the largest errors first."""
        return sorted(self.modules, key=lambda m: m.error, reverse=True)

    def as_json(self) -> dict[str, Any]:
        """The report as one JSON object."""
        return {
            "error": self.error,
            "exact": self.exact,
            "unchanged": self.unchanged,
            "modules": {m.name: {k: v for k, v in dataclasses.asdict(m).items() if k != "name"} for m in self.modules},
        }

    def lines(self) -> list[str]:
        """The report for a person: totals, and the modules with the largest errors."""
        kinds = Counter(ALGORITHMS[m.algorithm].title for m in self.modules)
        ranks = sorted({m.rank for m in self.modules if m.rank is not None})
        found = ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "no module"
        if ranks:
            found += f", rank {ranks[0]}" if len(ranks) == 1 else f", ranks {ranks[0]} to {ranks[-1]}"
        lines = [f"{found}; relative error {self.error:.3g} in all, {self.exact} kept exactly"]
        if self.unchanged:
            lines[0] += f", {counted(self.unchanged, 'weight is', 'weights are')} equal in both"
        lines += [
            f"  {m.error:8.2e}  rank {m.rank if m.rank is not None else 'full':>4}  {m.name}" for m in self.worst[:5]
        ]
        return lines
