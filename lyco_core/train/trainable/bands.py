"""Bands of ΔW, the product of two halves: by one kernel that keeps the halves in registers, elsewhere by torch."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from ... import fused
from ...devices import product_into
from ...scratch import scratch
from .sums import Base

__all__ = ["Band", "product"]


class Band:
    """Some rows of ΔW, in the factors' dtype; with `base`, of its sum with ΔW.

    What it gives is memory that a thread keeps on a CPU: it holds until the next band's.
    """

    def __init__(self, factors: Sequence[Tensor], rows: slice, base: Base | None) -> None:
        up1, down1, up2, down2 = factors
        self.halves = (up1[rows], down1), (up2[rows], down2)
        self.rows, self.base = rows, base
        self.shape, self.dtype, self.device = (self.halves[0][0].shape[0], down1.shape[1]), down1.dtype, down1.device

    def total(self, *, last: bool) -> Tensor:
        """The band itself. `last`: nothing more is asked of this one."""
        halves = [fused.Half(*half) for half in self.halves]
        weight, noise = (None, None) if self.base is None else self.base.rows(self.rows)
        if fused.ready(self.device) and fused.combine(out := self._room("total"), weight, halves, noise=noise):
            return out
        first, second = self._made
        out = first if last else self._room("total")
        return torch.mul(first, second, out=out) if self.base is None else self.base.plus(self.rows, first, second, out)

    def times(self, of_delta: Tensor) -> tuple[Tensor, Tensor]:
        """`of_delta` times the second half, and times the first: of what the gradients of first and second are made."""
        if fused.ready(self.device):
            one, other = (fused.Half(*half) for half in self.halves)
            outs = self._room("first"), self._room("second")
            if all(
                fused.combine(out, of_delta, [half], times=True) for out, half in zip(outs, (other, one), strict=True)
            ):
                return outs
        first, second = self._made
        return second.mul_(of_delta), first.mul_(of_delta)

    @functools.cached_property
    def _made(self) -> tuple[Tensor, Tensor]:
        """Both halves, by torch."""
        first, second = self.halves
        return product("first", *first), product("second", *second)

    def _room(self, use: str) -> Tensor:
        return scratch(f"hadamard {use}", self.shape, self.dtype, self.device)


def product(use: str, a: Tensor, b: Tensor) -> Tensor:
    """`a @ b`, on a CPU in memory that the thread keeps for this use."""
    return product_into(scratch(f"hadamard {use}", (a.shape[0], b.shape[1]), a.dtype, a.device), a, b)
