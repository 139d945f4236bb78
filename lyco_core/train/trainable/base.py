"""What every trainable adapter does; Musubi Tuner's definitions (networks/lora.py, loha.py, lokr.py)."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from ...adapters import Adapter

__all__ = ["Dropouts", "Trainable", "uniform"]


@dataclasses.dataclass(frozen=True)
class Dropouts:
    """Musubi's two dropouts of a module; probabilities in 0..1, None for none."""

    rank: float | None = None
    """LoHa, LoKr: of each output row of ΔW, one draw a forward pass. LoRA: of each rank of each sample."""
    module: float | None = None
    """Of the whole adapter, one draw a forward pass."""


class Trainable(nn.Module, ABC):
    """Factors in float32, ΔW = 0 at the start; `forward` gives what is added to the Linear's output."""

    def __init__(self, dropouts: Dropouts) -> None:
        super().__init__()
        self.dropouts = dropouts

    def forward(self, x: Tensor) -> Tensor | None:
        """x (…, in) -> (…, out) in x's dtype; None where the whole adapter is dropped."""
        p = self.dropouts.module
        if p is not None and self.training and float(torch.rand(1)) < p:
            return None
        return self.contribution(x)

    @abstractmethod
    def contribution(self, x: Tensor) -> Tensor:
        """`forward` without module dropout."""

    @abstractmethod
    def adapter(self) -> Adapter:
        """What it is now, detached, for a file."""

    def drop_rows(self, y: Tensor) -> Tensor:
        """Rank dropout of LoHa and LoKr: rows of ΔW are elements of the output (…, out)."""
        p = self.dropouts.rank
        if p is None or not self.training:
            return y
        kept = torch.rand(y.shape[-1], device=y.device) > p
        return y * (kept.to(y.dtype) / (1 - p))


def uniform(shape: tuple[int, int], generator: torch.Generator) -> nn.Parameter:
    """U(±1/√columns), which is what `kaiming_uniform_(a=√5)` draws."""
    bound = shape[1] ** -0.5
    return nn.Parameter((2 * torch.rand(shape, generator=generator) - 1) * bound)
