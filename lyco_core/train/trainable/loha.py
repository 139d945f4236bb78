"""LoHa while it is trained: ΔW is made by bands of rows, forward and again backward, and never kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ...adapters import LoHa
from ...adapters.base import BAND_BYTES
from .base import Dropouts, Trainable

__all__ = ["TrainableLoHa"]


class TrainableLoHa(Trainable):
    """ΔW = (w1_a @ w1_b) ⊙ (w2_a @ w2_b) · alpha / rank; a (out, rank), b (rank, in)."""

    def __init__(
        self, out: int, into: int, rank: int, alpha: float, generator: torch.Generator, dropouts: Dropouts
    ) -> None:
        super().__init__(dropouts)
        self.alpha, self.scale = alpha, alpha / rank
        self.w1_a = nn.Parameter(0.1 * torch.randn((out, rank), generator=generator))
        self.w1_b = nn.Parameter(torch.randn((rank, into), generator=generator))
        self.w2_a = nn.Parameter(torch.zeros(out, rank))
        self.w2_b = nn.Parameter(torch.randn((rank, into), generator=generator))

    def contribution(self, x: Tensor) -> Tensor:
        factors = (self.w1_a * self.scale, self.w1_b, self.w2_a, self.w2_b)
        flat: Tensor = HadamardLinear.apply(x.flatten(0, -2), *(f.to(x.dtype) for f in factors))  # type: ignore[assignment]
        return self.drop_rows(flat.view(*x.shape[:-1], -1))

    def adapter(self) -> LoHa:
        halves = (self.w1_a, self.w1_b, self.w2_a, self.w2_b)
        return LoHa(*(half.detach().clone() for half in halves), alpha=self.alpha)


class HadamardLinear(torch.autograd.Function):
    """y = x @ ((a1 @ b1) ⊙ (a2 @ b2)).T, keeping x and the factors alone; FedPara (arXiv:2108.06098)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, a1: Tensor, b1: Tensor, a2: Tensor, b2: Tensor) -> Tensor:
        ctx.save_for_backward(x, a1, b1, a2, b2)
        y = x.new_empty(x.shape[0], a1.shape[0])
        for band in _bands(a1.shape[0], b1.shape[1]):
            torch.mm(x, (a1[band] @ b1).mul_(a2[band] @ b2).t(), out=y[:, band])
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, a1, b1, a2, b2 = ctx.saved_tensors
        (gradient,) = grads
        of_x = torch.zeros_like(x) if ctx.needs_input_grad[0] else None
        of_a1, of_b1, of_a2, of_b2 = (torch.zeros_like(f) for f in (a1, b1, a2, b2))
        for band in _bands(a1.shape[0], b1.shape[1]):
            first, second = a1[band] @ b1, a2[band] @ b2
            of_y = gradient[:, band]
            if of_x is not None:
                of_x.addmm_(of_y, first * second)
            of_weight = of_y.t() @ x
            of_second, of_first = first.mul_(of_weight), second.mul_(of_weight)
            torch.mm(of_first, b1.t(), out=of_a1[band])
            of_b1.addmm_(a1[band].t(), of_first)
            torch.mm(of_second, b2.t(), out=of_a2[band])
            of_b2.addmm_(a2[band].t(), of_second)
        return of_x, of_a1, of_b1, of_a2, of_b2


def _bands(rows: int, columns: int) -> Iterator[slice]:
    """Bands of rows of 8 MB: fewer and larger ones than for adding, since each is a product with x too."""
    step = max(1, 4 * BAND_BYTES // (4 * columns))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))
