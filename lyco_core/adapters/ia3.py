"""IA3 (arXiv:2205.05638): each row, or each input channel, of the weight grows by a factor of its own."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import AdapterError
from .base import ANY
from .on_base import OnBase, along

__all__ = ["IA3"]


@dataclasses.dataclass(frozen=True, eq=False)
class IA3(OnBase):
    """weight: (n,) or (1, n, 1, …) as LyCORIS saves it: W' = W * (1 + weight), along its inputs with `on_input`."""

    algorithm: ClassVar[str] = "ia3"
    title: ClassVar[str] = "IA3"
    tensor_names: ClassVar[tuple[str, ...]] = ("weight",)

    weight: Tensor
    on_input: bool

    def check(self) -> None:
        if self.weight.numel() == 0 or self.weight.numel() != max(self.weight.shape, default=0):
            raise AdapterError(f"its IA3 weight has shape {list(self.weight.shape)}, expected one number a channel")

    @property
    def shape(self) -> tuple[int, ...]:
        return (ANY, self.weight.numel()) if self.on_input else (self.weight.numel(), ANY)

    def require_fit(self, weight: Tensor) -> None:
        """`Adapter.require_fit`, which here takes no number for each position of a kernel."""
        super().require_fit(weight if weight.dim() < 3 else weight[(..., *[0] * (weight.dim() - 2))])

    @property
    def rank(self) -> None:
        return None

    @property
    def stored(self) -> dict[tuple[str, str], Tensor]:
        return {**super().stored, ("ia3", "on_input"): torch.tensor(int(self.on_input))}

    def change(self, base: Tensor) -> Tensor:
        return base * along(self.weight.flatten(), int(self.on_input), base)

    def rows(self, start: int, stop: int) -> IA3:
        return self if self.on_input else dataclasses.replace(self, weight=self.weight.flatten()[start:stop])
