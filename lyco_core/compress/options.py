"""How small, or how exact, an approximation is to be."""

from __future__ import annotations

import dataclasses
import math

import torch

from ..adapters import LOW_RANK
from ..errors import LycoError
from ..selection import EVERYTHING, Selection

__all__ = ["Asked", "ExtractOptions"]


@dataclasses.dataclass(frozen=True)
class Asked:
    """At most `rank`, or the least rank whose relative error is at most `max_error`; with both, the smaller one."""

    rank: int | None = None
    max_error: float | None = None
    """Of the Frobenius norm: ‖ΔW' - ΔW‖ / ‖ΔW‖."""

    def __post_init__(self) -> None:
        if self.rank is None and self.max_error is None:
            raise LycoError("say how small: give a rank, an energy or an error")
        if self.rank is not None and self.rank < 1:
            raise LycoError(f"rank is {self.rank}, expected at least 1")
        if self.max_error is not None and not 0 < self.max_error < 1:
            raise LycoError(f"the error is {self.max_error:g}, expected a number between 0 and 1")

    @classmethod
    def of(cls, rank: int | None, energy: float | None, max_error: float | None) -> Asked:
        """From a person's words; `energy` is the share of the squared norm that is kept."""
        if energy is not None and not 0 < energy < 1:
            raise LycoError(f"energy is {energy:g}, expected a number between 0 and 1")
        errors = [max_error] if energy is None else [math.sqrt(1 - energy), *([max_error] if max_error else [])]
        return cls(rank, min((e for e in errors if e is not None), default=None))


@dataclasses.dataclass(frozen=True)
class ExtractOptions:
    """What an extraction makes."""

    algorithm: str
    """`lora`, `loha` or `lokr`."""
    asked: Asked | None
    """None for a LoKr whose W2 stays full."""
    factor: int = -1
    """Of a LoKr: one side of W1, as the trainers mean it; -1 splits evenly."""
    selection: Selection = EVERYTHING
    dtype: torch.dtype = torch.float32
    """Storage dtype; its rounding counts in the error."""
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.algorithm not in LOW_RANK:
            raise LycoError(f"the algorithm is {self.algorithm!r}, expected {', '.join(LOW_RANK)}")
        if self.asked is None and self.algorithm != "lokr":
            raise LycoError("say how small: give a rank, an energy or an error")
        if self.asked is not None and self.asked.max_error is not None and self.algorithm != "lora":
            raise LycoError(
                f"an energy or an error chooses the rank of a LoRA; for a {LOW_RANK[self.algorithm].title} give a rank"
            )
        if self.factor == 0 or self.factor < -1:
            raise LycoError(f"factor is {self.factor}, expected -1 or a number above 0")
