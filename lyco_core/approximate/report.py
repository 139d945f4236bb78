"""What an approximation made of each module, and the error of it."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from typing import Any

__all__ = ["Module", "Report"]


@dataclasses.dataclass(frozen=True)
class Module:
    """One module's approximation."""

    name: str
    algorithm: str
    rank: int | None
    error: float
    """‖ΔW' - ΔW‖ / ‖ΔW‖, computed from what is stored."""
    norm: float
    """‖ΔW‖."""


@dataclasses.dataclass(frozen=True)
class Report:
    """All modules, and what there is beside them."""

    modules: tuple[Module, ...]
    exact: int = 0
    """Differences of norms and biases, kept as they are; modules of a resized file that were small enough."""
    unchanged: int = 0
    """Weights that are equal in both checkpoints."""

    @property
    def error(self) -> float:
        """The relative error of all modules together."""
        total = sum(m.norm**2 for m in self.modules)
        return math.sqrt(sum((m.error * m.norm) ** 2 for m in self.modules) / total) if total else 0.0

    def as_json(self) -> dict[str, Any]:
        """One object of plain types."""
        return {
            "error": self.error,
            "exact": self.exact,
            "unchanged": self.unchanged,
            "modules": {m.name: {k: v for k, v in dataclasses.asdict(m).items() if k != "name"} for m in self.modules},
        }

    def lines(self) -> list[str]:
        """What a person reads: totals, and the modules with the largest errors."""
        kinds = Counter(m.algorithm for m in self.modules)
        ranks = sorted({m.rank for m in self.modules if m.rank is not None})
        found = ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "no module"
        if ranks:
            found += f", rank {ranks[0]}" if len(ranks) == 1 else f", ranks {ranks[0]} to {ranks[-1]}"
        lines = [f"{found}; relative error {self.error:.3g} in all, {self.exact} kept exactly"]
        if self.unchanged:
            lines[0] += f", {self.unchanged} weights are equal in both"
        worst = sorted(self.modules, key=lambda m: m.error, reverse=True)[:5]
        lines += [f"  {m.error:8.2e}  rank {m.rank if m.rank is not None else 'full':>4}  {m.name}" for m in worst]
        return lines
