"""What a conversion is asked for."""

from __future__ import annotations

import dataclasses

import torch

from ..compress.options import Asked
from ..errors import LycoError
from ..layouts import Layout

__all__ = ["Options"]


@dataclasses.dataclass(frozen=True)
class Options:
    """What a conversion is to make; without `rank`, `max_error` and `dtype` it is exact."""

    to: Layout
    as_lora: bool = False
    """Every adapter as a LoRA: for tools that know nothing else."""
    rank: int | None = None
    """The best LoRAs of at most this rank."""
    max_error: float | None = None
    """The smallest LoRAs whose relative error is at most this."""
    dtype: torch.dtype | None = None
    """Storage dtype of what is written; by default each tensor's own, float32 for products."""

    def __post_init__(self) -> None:
        if self.rank is not None and self.rank < 1:
            raise LycoError(f"rank is {self.rank}, expected at least 1")
        if self.max_error is not None and not 0 < self.max_error < 1:
            raise LycoError(f"the error is {self.max_error:g}, expected a number between 0 and 1")

    @property
    def asked(self) -> Asked | None:
        """The approximation that is asked for by name, if one is."""
        return None if self.rank is None and self.max_error is None else Asked(self.rank, self.max_error)
