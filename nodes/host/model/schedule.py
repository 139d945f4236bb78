"""A strength that changes while a picture is made: numbers by part of the way from noise to it."""

from __future__ import annotations

import ctypes
import dataclasses
import itertools
import math
import re
from bisect import bisect_right
from collections.abc import Callable

from ....lyco_core.errors import SelectionError

STEPPED = "stepped"
"""The word before a schedule whose numbers hold until the next, as ComfyUI's hook keyframes do."""

MOST = 100
"""The largest number, as of the nodes' strengths."""

_POINT = re.compile(r"\s*([0-9.]+)\s*:\s*([-+0-9.eE]+)\s*")


@dataclasses.dataclass(frozen=True)
class Schedule:
    """What a strength is multiplied by, at each part of the way."""

    points: tuple[tuple[float, float], ...]
    """(part, number), by part; before the first and after the last, theirs holds."""
    stepped: bool = False

    @classmethod
    def of(cls, text: str) -> Schedule | None:
        """The schedule that a person writes, `0:1, 0.3:0.8, 1:0`; None for an empty text.

        Raises:
            SelectionError: the text is no schedule.
        """
        text = " ".join(text.split())
        if not text:
            return None
        stepped = text.startswith(STEPPED)
        points: list[tuple[float, float]] = []
        for piece in text.removeprefix(STEPPED).strip(" ,").split(","):
            found = _POINT.fullmatch(piece)
            points.append(_point(piece, found.groups() if found else None))
        parts = [part for part, _ in points]
        if any(after <= before for before, after in itertools.pairwise(parts)):
            raise SelectionError(f"strength_schedule: its parts are {parts}, expected each greater than the one before")
        return cls(tuple(points), stepped)

    def at(self, part: float) -> float:
        """The number at a part of the way."""
        after = bisect_right(self.points, (part, math.inf))
        if after == 0:
            return self.points[0][1]
        start, value = self.points[after - 1]
        if self.stepped or after == len(self.points):
            return value
        stop, next_value = self.points[after]
        return value + (next_value - value) * (part - start) / (stop - start)

    def __str__(self) -> str:
        written = ", ".join(f"{part:g}:{number:g}" for part, number in self.points)
        return f"{STEPPED} {written}" if self.stepped else written


def _point(piece: str, found: tuple[str, ...] | None) -> tuple[float, float]:
    try:
        part, number = map(float, found or ())
    except ValueError:
        raise SelectionError(
            f"strength_schedule: '{piece.strip()}' is no PART:NUMBER; write it like 0:1, 0.3:0.8, 1:0, or "
            f"{STEPPED} 0:1, 0.5:0"
        ) from None
    if not (0 <= part <= 1 and abs(number) <= MOST):
        raise SelectionError(
            f"strength_schedule: '{piece.strip()}': expected a part from 0 (noise) to 1 (the picture) and a number "
            f"from -{MOST} to {MOST}"
        )
    return part, number


def part_of(sigma: float, percent_to_sigma: Callable[[float], float]) -> float:
    """How much of the way lies behind at a step's sigma, to six digits.

    It is the largest part that has begun by the rule of ComfyUI's hook keyframes, in their float32.
    """
    low, high = 0, 1_000_000
    while low < high:
        middle = (low + high + 1) // 2
        if ctypes.c_float(float(percent_to_sigma(middle / 1_000_000))).value >= sigma:
            low = middle
        else:
            high = middle - 1
    return low / 1_000_000
