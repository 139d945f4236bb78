"""How small, or how exact, an approximation is to be."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import torch

from ..adapters import LOW_RANK
from ..errors import AdapterError, LycoError, Remedy
from ..selection import EVERYTHING, Selection
from ..text import shorten
from .report import Measured

__all__ = ["ExtractOptions", "Limits", "RankTooSmall"]


class RankTooSmall(AdapterError):
    """The largest error that is allowed needs a larger rank than is allowed: `needed`."""

    def __init__(self, needed: int) -> None:
        super().__init__(f"needs rank {needed} for that error")
        self.needed = needed


@dataclasses.dataclass(frozen=True)
class Limits:
    """What an approximation must keep to.

    At most `rank`, or the least rank whose relative error is at most `max_error`; with both, both hold.
    """

    rank: int | None = None
    max_error: float | None = None
    """The largest relative error, in the Frobenius norm: ‖ΔW' - ΔW‖ / ‖ΔW‖."""

    def __post_init__(self) -> None:
        if self.rank is None and self.max_error is None:
            raise LycoError("say how small it is to be", Remedy.SMALLNESS)
        if self.rank is not None and self.rank < 1:
            raise LycoError(f"rank is {self.rank}, expected at least 1")
        if self.max_error is not None and not 0 < self.max_error < 1:
            raise LycoError(f"the error is {self.max_error:g}, expected a number between 0 and 1")

    @classmethod
    def of(cls, rank: int | None, energy: float | None, max_error: float | None) -> Limits:
        """The limits that a person's options mean; `energy` is the share of the squared norm that is kept."""
        if energy is not None and not 0 < energy < 1:
            raise LycoError(f"energy is {energy:g}, expected a number between 0 and 1")
        errors = [max_error] if energy is None else [math.sqrt(1 - energy), *([max_error] if max_error else [])]
        return cls(rank, min((e for e in errors if e is not None), default=None))

    def enough(self, needed: int) -> int:
        """`needed`, a rank that is near enough. Raises `RankTooSmall` if it is more than `rank`."""
        if self.max_error is not None and self.rank is not None and needed > self.rank:
            raise RankTooSmall(needed)
        return needed

    def before_rounding(self, dtype: torch.dtype) -> Limits:
        """The limits with the error that may be made before numbers are rounded to `dtype`; the two add up squared.

        Raises:
            LycoError: rounding alone makes a larger one.
        """
        if self.max_error is None:
            return self
        rounding = torch.finfo(dtype).eps / 2  # a number's at worst, for two factors of random roundings
        if self.max_error <= rounding:
            name = str(dtype).removeprefix("torch.")
            raise LycoError(
                f"the error is {self.max_error:g}, and rounding to {name} alone may make one of {rounding:.1g}; "
                "store it in a wider dtype, or allow a larger error"
            )
        return dataclasses.replace(self, max_error=math.sqrt(self.max_error**2 - rounding**2))

    def require(self, needed: Mapping[str, int], made: Sequence[Measured]) -> None:
        """Raise `LycoError` unless all modules keep to the limits.

        Args:
            needed: module -> the rank that it needs, for those that need more than `rank`.
            made: the others, as they would be stored.
        """
        if needed:
            some = shorten([f"{name}: rank {rank}" for name, rank in needed.items()])
            raise LycoError(
                f"{len(needed)} modules cannot have rank {self.rank} and an error of at "
                f"most {self.max_error:g} ({some}); give rank {max(needed.values())}, or allow a larger error"
            )
        worst = max(made, key=lambda module: module.error, default=None)
        if self.max_error is not None and worst is not None and worst.error > self.max_error:
            raise LycoError(
                f"{worst.name}: its error is {worst.error:.3g} as it would be stored, more than {self.max_error:g}; "
                "store it in a wider dtype, or allow a larger error"
            )


@dataclasses.dataclass(frozen=True)
class ExtractOptions:
    """What adapter an extraction makes, of which weights, and how it is stored."""

    algorithm: str
    """`lora`, `loha` or `lokr`."""
    limits: Limits | None
    """How small, or how exact; None: a LoKr whose W2 stays full."""
    factor: int = -1
    """One side of a LoKr's W1, as the trainers mean it; -1 splits evenly."""
    selection: Selection = EVERYTHING
    dtype: torch.dtype = torch.float32
    """Storage dtype; its rounding counts in the error."""
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.algorithm not in LOW_RANK:
            raise LycoError(f"the algorithm is {self.algorithm!r}, expected {', '.join(LOW_RANK)}")
        if self.limits is None and self.algorithm != "lokr":
            raise LycoError("say how small it is to be", Remedy.SMALLNESS)
        if self.limits is not None and self.limits.max_error is not None and self.algorithm != "lora":
            raise LycoError(
                f"an energy or an error chooses the rank of a LoRA, not of a {LOW_RANK[self.algorithm].title}",
                Remedy.RANK,
            )
        if self.factor == 0 or self.factor < -1:
            raise LycoError(f"factor is {self.factor}, expected -1 or a number above 0")

    @property
    def rank(self) -> int | None:
        """The largest rank; None for a LoKr whose W2 stays full."""
        return None if self.limits is None else self.limits.rank
