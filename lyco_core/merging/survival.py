"""What rounding leaves of a change: measured band by band while a quantized weight is written."""

from __future__ import annotations

import dataclasses
import math
import threading

import torch
from torch import Tensor

__all__ = ["Survival", "Tally"]

ENOUGH = 0.9
"""The least share of a change, and the least likeness, that counts as kept; below, the report says what keeps more."""

TOO_LITTLE = (
    "warning: these weights are too coarse for this change; to keep it, write a bfloat16 file, or load the adapter "
    "beside the weights instead of merging it"
)


@dataclasses.dataclass(frozen=True)
class Survival:
    """How much of a change is there after rounding."""

    error: float
    """‖stored - wanted‖ / ‖wanted‖."""
    kept: float
    """⟨stored, wanted⟩ / ‖wanted‖²."""

    @property
    def likeness(self) -> float:
        """⟨stored, wanted⟩ / (‖stored‖ ‖wanted‖): what is lost in noise lowers it, though it is all there."""
        stored = 2 * self.kept - 1 + self.error**2
        return self.kept / math.sqrt(stored) if stored > 0 else 0.0

    def __str__(self) -> str:
        return f"{100 * self.kept:.1f} % (error {self.error:.2g})"


class Tally:
    """Adds up, from several threads, what was wanted of each band and what rounding did to it."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[float, ...]] = {}
        self._turn = threading.Lock()

    def add(self, key: str, change: Tensor, error: Tensor, size: float = 0.0) -> None:
        """Count a band: what was wanted of it, what rounding did to that, and for `first_lines` its sum of squares."""
        wanted, wrong = change.reshape(-1), error.reshape(-1)
        new = (*(float(torch.dot(*pair)) for pair in ((wanted, wanted), (wrong, wanted), (wrong, wrong))), size)
        with self._turn:
            old = self._sums.get(key, (0.0,) * len(new))
            self._sums[key] = tuple(map(sum, zip(old, new, strict=True)))

    def lines(self) -> list[str]:
        """Lines for a person; none if no quantized weight was rounded."""
        whole, worst = self.whole, self.worst
        if whole is None or worst is None:
            return []
        key, least = worst
        lines = [f"of the change in quantized weights, {whole} is stored; worst in {key}: {least}"]
        if min(whole.kept, least.kept, whole.likeness, least.likeness) < ENOUGH:
            lines.append(TOO_LITTLE)
        return lines

    def first_lines(self) -> list[str]:
        """The same where the base was in floating point: what rounding takes of the weights, it takes of them without
        an adapter as well, so that it says nothing of the change how large it is beside it."""
        whole = self.whole
        if whole is None:
            return []
        key, least = min(self._each(), key=lambda item: item[1].kept)
        lines = [
            f"rounding moves these weights by {100 * self.roughness:.2g} % of their size, with or without adapters; of "
            f"the change, {100 * whole.kept:.1f} % is stored; least in {key}: {100 * least.kept:.1f} %"
        ]
        return [*lines, TOO_LITTLE] if min(whole.kept, least.kept) < ENOUGH else lines

    @property
    def roughness(self) -> float:
        """‖stored - exact‖ / ‖exact‖ of all weights together."""
        *_, wrong, size = map(sum, zip(*self._sums.values(), strict=True))
        return math.sqrt(wrong / size) if size > 0 else 0.0

    @property
    def whole(self) -> Survival | None:
        """How much is left of the changes of all weights together; None if no weight was rounded."""
        return _survival(tuple(map(sum, zip(*self._sums.values(), strict=True)))) if self._sums else None

    @property
    def worst(self) -> tuple[str, Survival] | None:
        """The weight with the largest error, and how much is left of its change; None if no weight was rounded."""
        return max(self._each(), key=lambda item: item[1].error, default=None)

    def _each(self) -> list[tuple[str, Survival]]:
        return [(key, made) for key, sums in self._sums.items() if (made := _survival(sums)) is not None]


def _survival(sums: tuple[float, ...]) -> Survival | None:
    wanted, across, wrong, _ = sums
    return Survival(math.sqrt(wrong / wanted), 1 + across / wanted) if wanted > 0 else None
