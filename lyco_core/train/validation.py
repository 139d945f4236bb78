"""How well a training predicts items that it does not learn from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from .distributed import World
from .draws import generator_of
from .items import Item
from .velocity import Errors

__all__ = ["TIMES", "Validation"]

TIMES = (0.125, 0.375, 0.625, 0.875)
"""The timesteps at which every item is tried, whatever is trained: so that any two runs compare."""


@dataclasses.dataclass(frozen=True)
class Validation:
    """What is tried, and how; see `loop.Training` for what it shares with that."""

    errors: Errors
    items: Sequence[Item]
    times: Sequence[float]
    world: World
    one_pass: Callable[[], AbstractContextManager[None]]
    """What a pass of the model is inside of; every process makes as many."""
    turn: Callable[[Tensor], None]

    @torch.no_grad()
    def error(self) -> float:
        """The mean squared error of all items, unweighted."""
        total = torch.zeros(1, device=self.errors.model.device)
        for t in self.times:
            self.turn(torch.tensor([t]))
            for first in range(0, len(self.items), self.world.processes):
                with self.one_pass():
                    total += self._error_of(first + self.world.rank, t)
        self.world.add_up([total])
        return float(total) / (len(self.items) * len(self.times))

    def _error_of(self, index: int, t: float) -> Tensor | float:
        """The error of an item at a timestep; 0 if there are not so many."""
        if index >= len(self.items):
            return 0.0
        item = self.items[index]
        noise = torch.randn(item.latent.shape, generator=generator_of(0, index))
        return self.errors.of(item.latent[None], noise[None], torch.tensor([t]), [item.condition])
