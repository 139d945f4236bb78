"""LoHa while it is trained."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from ...adapters import Adapter, LoHa
from ...fused import ready
from ..frozen import Frozen
from ..network_options import NetworkOptions
from .base import Trainable
from .hadamard import hadamard_linear
from .summed import cheapest, summed_linear

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["TrainableLoHa"]

_BAND = 512
"""Rows of ΔW that are made at once to measure it."""


class TrainableLoHa(Trainable):
    """w1_a (out, r), N(0, 0.1²); w1_b, w2_b (r, in), N(0, 1); w2_a (out, r), which starts at 0."""

    adapter_class: ClassVar[type[Adapter]] = LoHa
    faster: ClassVar[str] = "w2_a"

    w1_a: Tensor
    w1_b: Tensor
    w2_a: Tensor
    w2_b: Tensor

    @classmethod
    def initial(cls, shape: tuple[int, int], options: NetworkOptions, generator: torch.Generator) -> Self:
        (out, into), rank = shape, options.network_dim
        w1_a = torch.empty(out, rank).normal_(std=0.1, generator=generator)
        w1_b, w2_b = (torch.empty(rank, into).normal_(generator=generator) for _ in range(2))
        return cls(LoHa(w1_a, w1_b, torch.zeros(out, rank), w2_b, alpha=options.alpha), options)

    @classmethod
    def normalised(cls, adapter: LoHa) -> LoHa:
        return dataclasses.replace(adapter, alpha=adapter.scale * adapter.rank)

    def contribution(self, x: Tensor) -> Tensor:
        return hadamard_linear(x, self.w1_a, self.w1_b, self.w2_a, self.w2_b, self._rows(x.device))

    def summed(self, x: Tensor, frozen: Frozen) -> Tensor | None:
        if self.options.bypass_mode or not (self.training and torch.is_grad_enabled()):
            return None
        way = cheapest(x.shape[:-1].numel(), self.w1_b.shape[0], self.shape, x.device, x.dtype, ready(x.device))
        if not (way.summed and frozen.multiplies(x.device, x.dtype)):
            return None
        factors = (self.w1_a, self.w1_b, self.w2_a, self.w2_b)
        return summed_linear(x, *factors, self._rows(x.device), frozen, way.by_ranks)

    def norm(self) -> Tensor:
        """From the products of r² pairs of ranks, if that is less work than ΔW itself, by bands."""
        (out, into), rank = self.shape, self.w1_b.shape[0]
        if rank**3 * (out + into) < 2 * out * into:
            up = (self.w1_a.unsqueeze(2) * self.w2_a.unsqueeze(1)).flatten(1)
            down = (self.w1_b.unsqueeze(1) * self.w2_b).flatten(0, 1)
            squares = ((up.t() @ up) * (down @ down.t())).sum().clamp(min=0)
        else:
            squares = self.w1_a.new_zeros(())
            for start in range(0, out, _BAND):
                band = slice(start, start + _BAND)
                squares += ((self.w1_a[band] @ self.w1_b) * (self.w2_a[band] @ self.w2_b)).square().sum()
        return squares.sqrt() * abs(self.scale)

    def _rows(self, device: torch.device) -> Tensor:
        """(out,) or (1,), what each row of ΔW is multiplied with."""
        kept = self.kept_rows(device)
        return torch.full((1,), self.scale, device=device) if kept is None else kept * self.scale
