"""What a conversion made, and what it says about it."""

from __future__ import annotations

import dataclasses
from collections import Counter

from ..adapter_set import AdapterSet
from ..adapters import Adapter
from ..approximate.report import Measured, Report

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
    measured: Measured | None = None
    """How far it is from its source, where it is an approximation or of another dtype; else None."""


@dataclasses.dataclass(frozen=True)
class Conversion:
    """All that a conversion made."""

    source: AdapterSet
    """What was converted."""
    modules: tuple[Converted, ...]
    adapter_set: AdapterSet
    """The same change under the other layout's names, as a file of it holds it."""
    note: str = ""
    """What of it is for whom, where not all that go by the layout read it."""

    @property
    def report(self) -> Report | None:
        """The errors of the modules that are approximations or of another dtype; None if there is none."""
        measured = tuple(m.measured for m in self.modules if m.measured is not None)
        return Report(measured) if measured else None

    def summary(self) -> str:
        """How the modules came to be, in one line."""
        counts = Counter(m.how for m in self.modules)
        text = ", ".join(f"{count} {how}" for how, count in counts.most_common())
        if (report := self.report) is not None:
            worst = report.worst[0]
            text += f"; relative error {report.error:.2e}, at worst {worst.error:.2e} ({worst.name})"
        text = "; ".join(filter(None, [text, self.note]))
        return "; left out: ".join([text, *self.source.left_out])
