"""The one mean of the loss that is told: in the report, the progress, the graph, and on the card."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

SPAN = 100
"""Over how many steps: a single one says little, since each draws its own noise. Also web/curve.mjs has it."""


@dataclasses.dataclass(frozen=True)
class Mean:
    """A mean, and of how many of the last steps it is."""

    value: float
    steps: int


def recent(losses: Sequence[float]) -> Mean:
    """The mean of the last `SPAN` losses, or of all if there are fewer."""
    last = losses[-SPAN:]
    return Mean(sum(last) / len(last), len(last))


def means(losses: Sequence[float]) -> list[float]:
    """`recent` after each loss; the formula is that of `Series.means` in web/curve.mjs."""
    return [recent(losses[max(0, end - SPAN) : end]).value for end in range(1, len(losses) + 1)]


def mean_line(mean: Mean) -> str:
    """A mean in words."""
    return f"loss {mean.value:.4f}" + (f" (mean of the last {mean.steps} steps)" if mean.steps > 1 else "")
