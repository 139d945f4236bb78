"""LoRA while it is trained."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...adapters import LoRA
from .base import Dropouts, Trainable, uniform

__all__ = ["TrainableLoRA"]


class TrainableLoRA(Trainable):
    """y = x @ down.T @ up.T · alpha / rank; down (rank, in), up (out, rank)."""

    def __init__(
        self, out: int, into: int, rank: int, alpha: float, generator: torch.Generator, dropouts: Dropouts
    ) -> None:
        super().__init__(dropouts)
        self.alpha, self.scale = alpha, alpha / rank
        self.down = uniform((rank, into), generator)
        self.up = nn.Parameter(torch.zeros(out, rank))

    def contribution(self, x: Tensor) -> Tensor:
        hidden, scale, p = x @ self.down.t().to(x.dtype), self.scale, self.dropouts.rank
        if p is not None and self.training:
            kept = torch.rand((x.shape[0], self.down.shape[0]), device=x.device) > p
            between = [1] * (x.dim() - 2)
            hidden = hidden * kept.view(kept.shape[0], *between, kept.shape[1]).to(x.dtype)
            scale /= 1 - p
        return hidden @ self.up.t().to(x.dtype) * scale

    def adapter(self) -> LoRA:
        return LoRA(up=self.up.detach().clone(), down=self.down.detach().clone(), alpha=self.alpha)
