"""LoKr while it is trained."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from ...adapters import Adapter, LoKr
from ...adapters.factors import factorization
from ..network_options import NetworkOptions
from .base import Trainable, uniform
from .kronecker import kron_linear

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["TrainableLoKr"]


class TrainableLoKr(Trainable):
    """w1 (out_l, in_m), U(±1/√in_m); w2_a (out_k, r), U(±1/√r); w2_b (r, in_n), which starts at 0.

    Where r is at least half the larger of out_k and in_n, a product would have as many numbers as
    W2 itself: then it is one matrix, w2 (out_k, in_n), which starts at 0, and the scale is 1.
    """

    adapter_class: ClassVar[type[Adapter]] = LoKr
    faster: ClassVar[str] = "w1"

    w1: Tensor
    w2: Tensor
    w2_a: Tensor
    w2_b: Tensor

    @classmethod
    def initial(cls, shape: tuple[int, int], options: NetworkOptions, generator: torch.Generator) -> Self:
        (out_l, out_k), (in_m, in_n) = (factorization(n, options.factor) for n in shape)
        rank = options.network_dim
        w1 = uniform(out_l, in_m, generator)
        if 2 * rank >= max(out_k, in_n):  # Musubi keeps the rank as alpha there
            return cls(LoKr(w1=w1, w2=torch.zeros(out_k, in_n), alpha=float(rank)), options)
        w2_a, w2_b = uniform(out_k, rank, generator), torch.zeros(rank, in_n)
        return cls(LoKr(w1=w1, w2_a=w2_a, w2_b=w2_b, alpha=options.alpha), options)

    @classmethod
    def normalised(cls, adapter: LoKr) -> LoKr:
        """w1 as one matrix, since Musubi knows no other; if need be with the scale in it."""
        w1 = adapter.factor1(torch.float32, next(iter(adapter.tensors.values())).device)
        if adapter.w2 is None:
            alpha = adapter.scale * (adapter.rank or 1)
        else:
            w1, alpha = w1 * adapter.scale, float(max(adapter.w2.shape))
        return dataclasses.replace(adapter, w1=w1, w1_a=None, w1_b=None, alpha=alpha)

    @property
    def full(self) -> bool:
        """Whether W2 is one matrix."""
        return "w2" in self._parameters

    def norm(self) -> Tensor:
        """That of W1 times that of W2."""
        if self.full:
            squares = self.w2.square().sum()
        else:
            squares = ((self.w2_a.t() @ self.w2_a) * (self.w2_b @ self.w2_b.t())).sum().clamp(min=0)
        return (self.w1.square().sum() * squares).sqrt() * abs(self.scale)

    def contribution(self, x: Tensor) -> Tensor:
        kept = self.kept_rows(x.device)
        y = kron_linear(x, self.w1, (self.w2,) if self.full else (self.w2_a, self.w2_b), self.scale)
        return y if kept is None else y * kept.to(y.dtype)
