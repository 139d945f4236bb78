"""What a conversion made, and what it says about it."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter

from ..adapter_set import AdapterSet
from ..adapters import Adapter

__all__ = ["Conversion", "Converted"]


@dataclasses.dataclass(frozen=True)
class Converted:
    """One module of the new file."""

    module_path: str
    sources: tuple[str, ...]
    """Module paths that it was made from."""
    adapter: Adapter
    how: str
    """`renamed`, `cut`, `stacked`, `as LoRA`, `as LoHa` or `approximated`."""
    error: float | None = None
    """Relative error of ΔW, measured, where an approximation was asked for."""
    norm: float = 0.0
    """Frobenius norm of the exact ΔW, where an error was measured."""


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What a conversion made, and what it says about it."""

    source: AdapterSet
    modules: tuple[Converted, ...]
    adapter_set: AdapterSet
    """The same change under the other layout's names, as a file of it holds it."""

    @property
    def error(self) -> float | None:
        """Relative error of all ΔW together, where an approximation was asked for."""
        if all(m.error is None for m in self.modules):
            return None
        wrong = math.hypot(*(m.norm * (m.error or 0.0) for m in self.modules))
        return wrong / (math.hypot(*(m.norm for m in self.modules)) or 1.0)

    def summary(self) -> str:
        """How the modules came to be, in one line."""
        counts = Counter(m.how for m in self.modules)
        text = ", ".join(f"{count} {how}" for how, count in counts.most_common())
        if (error := self.error) is not None:
            worst = max(self.modules, key=lambda m: m.error or 0.0)
            text += f"; relative error {error:.2e}, at worst {worst.error or 0.0:.2e} ({worst.module_path})"
        return "; left out: ".join([text, *self.source.left_out])
