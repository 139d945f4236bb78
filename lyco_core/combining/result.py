"""What a combination made, and what it says about it."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

from ..adapter_set import AdapterSet
from ..adapters import Adapter
from ..approximate.report import Measured, Report
from ..text import counted

__all__ = ["Combination", "Combined"]


@dataclasses.dataclass(frozen=True)
class Combined:
    """One module of the new file."""

    path: str
    adapter: Adapter
    files: int
    """How many of the files change it."""
    measured: Measured | None = None
    """How far it is from the exact combination, where it is an approximation or of another dtype; else None."""
    averaged: bool = False
    """Whether its factors are the average of the files' factors."""


@dataclasses.dataclass(frozen=True)
class Combination:
    """All that a combination made."""

    adapter_set: AdapterSet
    modules: tuple[Combined, ...]
    sources: Sequence[tuple[str, float, int]]
    """Name, strength, and how many modules of the result it changes, of each file that takes part."""
    method: str
    cancelled: int = 0
    """Modules of which the strengths leave nothing, which are not written."""
    notes: Sequence[str] = ()
    """What else a person is told."""

    @property
    def report(self) -> Report | None:
        """The errors of the modules that are approximations or of another dtype; None if there is none."""
        measured = tuple(m.measured for m in self.modules if m.measured is not None)
        return Report(measured, exact=len(self.modules) - len(measured)) if measured else None

    def lines(self) -> list[str]:
        """What was made, for a person: the files, the result, and its errors."""
        lines = [f"{name}: {counted(n, 'module')} at strength {strength:.4g}" for name, strength, n in self.sources]
        kinds = Counter(m.adapter.title for m in self.modules)
        ranks = sorted({m.adapter.rank for m in self.modules if m.adapter.rank is not None})
        made = f"{self.method}: " + ", ".join(f"{count} {title}" for title, count in kinds.items())
        if ranks:
            made += f", rank {ranks[0]}" if len(ranks) == 1 else f", ranks {ranks[0]} to {ranks[-1]}"
        if self.report is None:
            made += ", exact"
        lines.append(made)
        if alone := sum(m.files == 1 for m in self.modules):
            lines.append(f"{counted(alone, 'module is that', 'modules are those')} of one file alone")
        if self.cancelled:
            cancelled = counted(self.cancelled, "module is", "modules are")
            lines.append(f"{cancelled} left out: the strengths leave nothing there")
        lines += self.notes
        return lines if self.report is None else [*lines, *self.report.lines()]
