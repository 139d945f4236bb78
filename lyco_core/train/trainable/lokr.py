"""LoKr while it is trained: ΔW = kron(w1, w2) is never built."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...adapters import LoKr
from .base import Dropouts, Trainable, uniform

__all__ = ["TrainableLoKr", "factorization"]


def factorization(dimension: int, factor: int) -> tuple[int, int]:
    """Two factors of `dimension`, the smaller first (LyCORIS' dialect, as Musubi has it).

    `factor` if it divides `dimension`; else the largest divisor up to it; -1: the most equal two.
    """
    if factor > 0 and dimension % factor == 0:
        return min(factor, dimension // factor), max(factor, dimension // factor)
    limit = dimension if factor < 0 else factor
    small = max(n for n in range(1, max(1, min(limit, int(dimension**0.5))) + 1) if dimension % n == 0)
    return small, dimension // small


class TrainableLoKr(Trainable):
    """w1 (out_l, in_m) full; w2 as w2_a (out_k, rank) @ w2_b (rank, in_n), or full (out_k, in_n).

    W2 is full, with scale 1, where `rank` is at least half its larger side: a product would hold
    as many numbers.
    """

    def __init__(
        self,
        out: int,
        into: int,
        rank: int,
        alpha: float,
        generator: torch.Generator,
        dropouts: Dropouts,
        factor: int = -1,
    ) -> None:
        super().__init__(dropouts)
        (out_l, out_k), (in_m, in_n) = factorization(out, factor), factorization(into, factor)
        self.w1 = uniform((out_l, in_m), generator)
        self.full = rank >= max(out_k, in_n) / 2
        self.alpha, self.scale = (float(rank), 1.0) if self.full else (alpha, alpha / rank)
        if self.full:
            self.w2 = nn.Parameter(torch.zeros(out_k, in_n))
        else:
            self.w2_a = uniform((out_k, rank), generator)
            self.w2_b = nn.Parameter(torch.zeros(rank, in_n))

    def contribution(self, x: Tensor) -> Tensor:
        """W1 acts between the halves of W2, in the rank space; where W2 is full, on the smaller side."""
        w1 = (self.w1 * self.scale).to(x.dtype)
        hidden = x.reshape(*x.shape[:-1], w1.shape[1], -1)
        if not self.full:
            hidden = w1 @ (hidden @ self.w2_b.t().to(x.dtype)) @ self.w2_a.t().to(x.dtype)
        elif self.w2.shape[0] <= self.w2.shape[1]:
            hidden = w1 @ (hidden @ self.w2.t().to(x.dtype))
        else:
            hidden = (w1 @ hidden) @ self.w2.t().to(x.dtype)
        return self.drop_rows(hidden.flatten(-2))

    def adapter(self) -> LoKr:
        w1 = self.w1.detach().clone()
        if self.full:
            return LoKr(w1=w1, w2=self.w2.detach().clone(), alpha=self.alpha)
        return LoKr(w1=w1, w2_a=self.w2_a.detach().clone(), w2_b=self.w2_b.detach().clone(), alpha=self.alpha)
