"""LoHa, the low-rank Hadamard product (FedPara, arXiv:2108.06098; LyCORIS):
ΔW = (w1_a @ w1_b) * (w2_a @ w2_b) * scale."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from ..devices import add_product_, product_into
from ..errors import AdapterError
from ..fused import Half
from ..scratch import scratch
from .additive import Additive
from .base import Adapter, band_size, compute_dtype, working
from .by_type import ByType
from .factors import low_rank, require_product, require_tensors
from .lora import LoRA, lora_rank, to_lora

__all__ = ["LoHa", "to_loha"]


@dataclasses.dataclass(frozen=True, eq=False)
class LoHa(Additive):
    """w1_a, w2_a: (out, r); w1_b, w2_b: (r, in·kernel).

    Tucker: t1, t2 (r, r, *kernel), then w1_a, w2_a are (r, out) and w1_b, w2_b (r, in).
    """

    algorithm: ClassVar[str] = "loha"
    title: ClassVar[str] = "LoHa"
    tensor_names: ClassVar[tuple[str, ...]] = ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")

    w1_a: Tensor
    w1_b: Tensor
    w2_a: Tensor
    w2_b: Tensor
    t1: Tensor | None = None
    t2: Tensor | None = None

    def check(self) -> None:
        four = {name: getattr(self, name) for name in self.tensor_names[:4]}
        require_tensors(four, "LoHa", "w1_a, w1_b, w2_a and w2_b")
        if (self.t1 is None) != (self.t2 is None):
            require_tensors({"t1": self.t1, "t2": self.t2}, "Tucker LoHa", "t1 and t2")
        require_product("w1_a", self.w1_a, "w1_b", self.w1_b, "t1", self.t1)
        require_product("w2_a", self.w2_a, "w2_b", self.w2_b, "t2", self.t2)
        if self.w1_b.shape[0] != self.w2_b.shape[0]:
            raise AdapterError(
                f"w1_b {list(self.w1_b.shape)} has rank {self.w1_b.shape[0]}, w2_b {list(self.w2_b.shape)} "
                f"has rank {self.w2_b.shape[0]}; both halves of a LoHa have one rank"
            )
        halves = [
            _shape(self.w1_a, self.w1_b, self.t1),
            _shape(self.w2_a, self.w2_b, self.t2),
        ]
        if halves[0] != halves[1]:
            raise AdapterError(
                f"w1_a @ w1_b is {list(halves[0])}, w2_a @ w2_b is {list(halves[1])}; "
                "both halves of a LoHa have one shape"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        return _shape(self.w1_a, self.w1_b, self.t1)

    @property
    def rank(self) -> int:
        return self.w1_b.shape[0]

    def factors(self, dtype: torch.dtype | None, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(out, r), (r, in·kernel) of the first half and of the second, unscaled."""
        first = low_rank(self.w1_a, self.w1_b, self.t1, dtype, device)
        return (*first, *low_rank(self.w2_a, self.w2_b, self.t2, dtype, device))

    def halves(self, device: torch.device) -> Sequence[Half]:
        w1_a, w1_b, w2_a, w2_b = self.factors(None, device)
        return Half(w1_a, w1_b), Half(w2_a, w2_b)

    def _add_to_(self, flat: Tensor, factor: float) -> None:
        w1_a, w1_b, w2_a, w2_b = self.factors(compute_dtype(flat.dtype), flat.device)
        step = min(flat.shape[0], band_size(flat.shape[1], flat.device))
        first, second = scratch("halves", (2, step, flat.shape[1]), w1_b.dtype, flat.device).unbind()
        for start in range(0, flat.shape[0], step):
            band = slice(start, start + step)
            with working(flat[band]) as target:
                height = target.shape[0]
                product_into(first[:height], w1_a[band], w1_b)
                product_into(second[:height], w2_a[band], w2_b)
                target.addcmul_(first[:height], second[:height], value=factor)

    def apply(self, x: Tensor) -> Tensor:
        """`x @ ΔW.T` by bands of ΔW; where the rank is low enough, as the LoRA of rank r² that it equals."""
        flat = x.reshape(-1, x.shape[-1])
        out = flat.new_zeros(flat.shape[0], self.flat_shape[0])
        self._apply_to_(flat, out, self.scale)
        return out.view(*x.shape[:-1], -1)

    def _apply_to_(self, x: Tensor, output: Tensor, factor: float) -> None:
        w1_a, w1_b, w2_a, w2_b = self.factors(x.dtype, x.device)
        (out, rank), into = w1_a.shape, w1_b.shape[1]
        if rank**2 * (out + into) < out * into:
            _add_by_pairs_(output, x, w1_a, w1_b, w2_a, w2_b, factor)
            return
        step = band_size(into, x.device)
        for start in range(0, out, step):
            band = slice(start, start + step)
            delta = (w1_a[band] @ w1_b).mul_(w2_a[band] @ w2_b)
            add_product_(output[:, band], x, delta.t(), factor)

    def rows(self, start: int, stop: int) -> LoHa:
        if self.t1 is None:
            return dataclasses.replace(self, w1_a=self.w1_a[start:stop], w2_a=self.w2_a[start:stop])
        return dataclasses.replace(self, w1_a=self.w1_a[:, start:stop], w2_a=self.w2_a[:, start:stop])


@ByType
def to_loha(adapter: Adapter) -> LoHa | None:
    """A LoHa with the same ΔW whose numbers are the adapter's own, so in its own dtype; None where there is none."""
    ...


@to_loha.register(LoHa)
def _(adapter: LoHa) -> LoHa:
    return adapter


@to_loha.register(LoRA)
def _(adapter: LoRA) -> LoHa | None:
    """(up @ down) * (1 @ 1): the second half is all ones. None with a Tucker core, whose sums round."""
    if adapter.mid is not None:
        return None
    up, down = adapter.up.flatten(1), adapter.down.flatten(1)
    ones_up, ones_down = torch.zeros_like(up), torch.zeros_like(down)
    ones_up[:, 0] = 1
    ones_down[0] = 1
    return LoHa(up, down, ones_up, ones_down, alpha=adapter.alpha)


@to_lora.register(LoHa)
def _(adapter: LoHa) -> LoRA:
    """Rank r²: column (i, j) of up is w1_a[:, i] * w2_a[:, j], likewise the rows of down."""
    w1_a, w1_b, w2_a, w2_b = adapter.factors(torch.float32, adapter.w1_a.device)
    up = (w1_a.unsqueeze(2) * w2_a.unsqueeze(1)).flatten(1)
    down = row_pairs(w1_b, w2_b)
    alpha = None if adapter.alpha is None else adapter.alpha * adapter.rank
    return LoRA(up, down.reshape(-1, *adapter.shape[1:]), alpha=alpha)


@lora_rank.register(LoHa)
def _(adapter: LoHa) -> int:
    return adapter.rank**2


def _shape(a: Tensor, b: Tensor, mid: Tensor | None) -> tuple[int, ...]:
    if mid is None:
        return (a.shape[0], b.shape[1], *b.shape[2:])
    return (a.shape[1], b.shape[1], *mid.shape[2:])


def row_pairs(one: Tensor, other: Tensor) -> Tensor:
    """(c, n) and (r, n) -> (c·r, n): every row of one times every row of the other."""
    return (one.unsqueeze(1) * other).flatten(0, 1)


def _add_by_pairs_(
    output: Tensor, x: Tensor, w1_a: Tensor, w1_b: Tensor, w2_a: Tensor, w2_b: Tensor, factor: float
) -> None:
    """`output += factor * x @ ((w1_a @ w1_b) * (w2_a @ w2_b)).T` from products of pairs of ranks, some at a time."""
    rank = w1_b.shape[0]
    widest = rank * max(x.shape[0], x.shape[1], output.shape[1])
    step = max(1, 256 // rank if x.device.type == "cpu" else band_size(widest, x.device))
    for start in range(0, rank, step):
        some = slice(start, start + step)
        down = row_pairs(w1_b[some], w2_b)
        up = (w1_a[:, some].unsqueeze(2) * w2_a.unsqueeze(1)).flatten(1)
        add_product_(output, x @ down.t(), up.t(), factor)
