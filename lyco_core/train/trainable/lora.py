"""LoRA while it is trained."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import linear

from ...adapters import Adapter, LoRA
from ..network_options import NetworkOptions
from .base import Trainable, dropout, kept, uniform

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["TrainableLoRA"]


class TrainableLoRA(Trainable):
    """up (out, r), which starts at 0; down (r, in), U(±1/√in)."""

    adapter_class: ClassVar[type[Adapter]] = LoRA
    faster: ClassVar[str] = "up"

    up: Tensor
    down: Tensor

    @classmethod
    def initial(cls, shape: tuple[int, int], options: NetworkOptions, generator: torch.Generator) -> Self:
        rank = options.network_dim
        uniform(rank, shape[1], generator)  # Musubi's are two nn.Linear, which fill themselves first
        uniform(shape[0], rank, generator)
        down = uniform(rank, shape[1], generator)
        return cls(LoRA(torch.zeros(shape[0], rank), down, alpha=options.alpha), options)

    @classmethod
    def normalised(cls, adapter: LoRA) -> LoRA:
        return dataclasses.replace(adapter, alpha=adapter.scale * adapter.rank)

    def contribution(self, x: Tensor) -> Tensor:
        hidden = linear(x, self.down.to(x.dtype))
        if self.training:
            hidden = self._dropped(hidden)
        return linear(hidden, (self.up * self.scale).to(x.dtype))

    def norm(self) -> Tensor:
        squares = (self.up.t() @ self.up) * (self.down @ self.down.t())
        return squares.sum().clamp(min=0).sqrt() * abs(self.scale)

    def _dropped(self, hidden: Tensor) -> Tensor:
        """(samples, …, r): dropout of single numbers, then of the ranks of each sample."""
        if self.options.network_dropout:
            hidden = dropout(hidden, self.options.network_dropout)
        if p := self.options.rank_dropout:
            ranks = kept((hidden.shape[0], hidden.shape[-1]), p, hidden.device).to(hidden.dtype)
            hidden = hidden * ranks.view(ranks.shape[0], *[1] * (hidden.dim() - 2), -1)
        return hidden
