"""The exponential moving average of a network."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = ["Average"]


class Average:
    """The exponential moving average (EMA) of a network's parameters.

    The decay is `decay` in the long run; after step n it is at most (1 + n) / (10 + n), so that the first values are
    soon forgotten.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._network, self._decay = network, decay
        self.values: dict[str, Tensor] = {name: p.detach().clone() for name, p in network.named_parameters()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the parameters after step number `step`, from 1."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for name, parameter in self._network.named_parameters():
            self.values[name].lerp_(parameter, 1 - decay)

    @contextmanager
    def in_place(self) -> Generator[None]:
        """Inside, the network has the averages as its parameters."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self._network.named_parameters():
            parameter.data, self.values[name] = self.values[name], parameter.data

    def load(self, values: dict[str, Tensor]) -> None:
        """Go on from saved values, whose names and shapes are the network's."""
        for name, tensor in values.items():
            self.values[name].copy_(tensor)
