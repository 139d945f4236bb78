"""BoRA, bi-dimensional weight-decomposed adaptation (arXiv:2412.06441), on a LoRA, LoHa or LoKr; on a LoKr it is GLoKr.
W' = column * H / ‖H‖ of each column, H = row * (W + ΔW) / ‖W + ΔW‖ of each row."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import AdapterError
from .additive import Additive
from .on_base import OnBase

__all__ = ["BoRA"]

LEAST_NORM = 1e-8
"""What the trainer divides by where a norm is smaller."""


@dataclasses.dataclass(frozen=True, eq=False)
class BoRA(OnBase):
    """row: (out, 1), column: (1, in): the norms of each, the rows' first."""

    inner: Additive
    row: Tensor
    column: Tensor

    tensor_names: ClassVar[tuple[str, ...]] = ("row", "column")

    def check(self) -> None:
        expected, found = self.inner.flat_shape, (self.row.numel(), self.column.numel())
        if found != expected or len(self.inner.shape) != 2:
            raise AdapterError(
                f"its BoRA magnitudes are {found[0]} of rows and {found[1]} of columns, expected {expected[0]} and "
                f"{expected[1]} of a weight of {list(self.inner.shape)}; the file is damaged"
            )

    @property
    def algorithm(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """`lokr+bora`, say."""
        return f"{self.inner.algorithm}+bora"

    @property
    def title(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """`LoKr with BoRA`, say."""
        return f"{self.inner.title} with BoRA"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.inner.shape

    @property
    def rank(self) -> int | None:
        return self.inner.rank

    @property
    def tensors(self) -> dict[str, Tensor]:
        return {**self.inner.tensors, **super().tensors}

    @property
    def stored(self) -> dict[tuple[str, str], Tensor]:
        return {**self.inner.stored, ("bora", "row"): self.row, ("bora", "column"): self.column}

    def on(self, inner: Additive) -> BoRA:
        """A copy with these magnitudes on another adapter."""
        return dataclasses.replace(self, inner=inner, alpha=inner.alpha)

    def with_tensors(self, tensors: dict[str, Tensor]) -> BoRA:
        own = {name: tensors[name] for name in self.tensor_names if name in tensors}
        inner = {name: tensor for name, tensor in tensors.items() if name not in own}
        return dataclasses.replace(self, **own, inner=self.inner.with_tensors(inner))

    def gains(self, changed: Tensor) -> tuple[Tensor, Tensor]:
        """(out, 1) and (1, in), whose product with W + ΔW, `changed`, is W'."""
        row = self.row.to(changed).reshape(-1, 1) / _norm(changed, 1)
        return row, self.column.to(changed).reshape(1, -1) / _norm(row * changed, 0)

    def change(self, base: Tensor) -> Tensor:
        """(g - 1) W + g ΔW with g the gains' product: no difference of two nearly equal weights."""
        delta = self.inner.add_to_(torch.zeros_like(base))
        row, column = self.gains(base + delta)
        gain = row * column
        return delta.mul_(gain).add_(base * (gain - 1))

    def rows(self, start: int, stop: int) -> BoRA | None:
        """The adapter itself for all rows, None for fewer: a column's norm is a sum over all."""
        return self if (start, stop) == (0, self.shape[0]) else None


def _norm(weight: Tensor, axis: int) -> Tensor:
    return weight.square().sum(dim=axis, keepdim=True).sqrt().clamp(min=LEAST_NORM)
