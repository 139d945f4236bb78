"""OFT of a weight whose rows are several layers' in one, each with blocks of its own: kohya's for FLUX.1."""

from __future__ import annotations

import dataclasses
import itertools
from typing import ClassVar

import torch
from torch import Tensor

from .base import ANY
from .factors import require_tensors
from .oft import OFT
from .on_base import OnBase

__all__ = ["SplitOFT"]


@dataclasses.dataclass(frozen=True, eq=False)
class SplitOFT(OnBase):
    """blocks: for each part of the rows, in their order, an OFT's (k, b, b); alpha is the constraint of each."""

    algorithm: ClassVar[str] = "oft"
    title: ClassVar[str] = "OFT"
    tensor_names: ClassVar[tuple[str, ...]] = ()

    blocks: tuple[Tensor, ...]

    def check(self) -> None:
        first = self.blocks[0] if self.blocks else None
        require_tensors({"oft_blocks.0": first}, "OFT", "oft_blocks.0 and those that follow")
        assert self.parts  # each is checked

    @property
    def parts(self) -> list[OFT]:
        """Each part's own OFT."""
        return [OFT(blocks, alpha=self.alpha) for blocks in self.blocks]

    @property
    def borders(self) -> list[int]:
        """0, and the row after each part's last."""
        return list(itertools.accumulate((part.shape[0] for part in self.parts), initial=0))

    @property
    def shape(self) -> tuple[int, ...]:
        return self.borders[-1], ANY

    @property
    def rank(self) -> None:
        return None

    @property
    def tensors(self) -> dict[str, Tensor]:
        return {f"blocks.{index}": blocks for index, blocks in enumerate(self.blocks)}

    def with_tensors(self, tensors: dict[str, Tensor]) -> SplitOFT:
        mine = {**self.tensors, **tensors}
        return dataclasses.replace(self, blocks=tuple(mine[name] for name in self.tensors))

    def change(self, base: Tensor) -> Tensor:
        bands = zip(self.parts, itertools.pairwise(self.borders), strict=True)
        return torch.cat([part.change(base[start:stop]) for part, (start, stop) in bands])

    def rows(self, start: int, stop: int) -> OnBase | None:
        """The parts that are start:stop; None where those cut one."""
        borders = self.borders
        if start not in borders or stop not in borders or start == stop:
            return None
        blocks = self.blocks[borders.index(start) : borders.index(stop)]
        return OFT(blocks[0], alpha=self.alpha) if len(blocks) == 1 else dataclasses.replace(self, blocks=blocks)
