"""Random numbers that timesteps are made of: drawn freely, or dealt so that every part of a distribution has its turn.

Dealt numbers depend on the seed and on how many items came before alone, as all that is drawn.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

__all__ = ["Source", "deal"]

_EDGE = 1e-7
"""How near to 0 and 1 a dealt number may make a normal one of, as in Musubi Tuner."""


@dataclasses.dataclass(frozen=True)
class Source:
    """What `count` timesteps are made of."""

    count: int
    generator: torch.Generator
    dealt: Tensor | None = None
    """(count,) from 0 to 1, as which a distribution's own place is taken; None: they are drawn."""

    def uniform(self) -> Tensor:
        """(count,) of U(0, 1)."""
        return torch.rand(self.count, generator=self.generator) if self.dealt is None else self.dealt

    def normal(self) -> Tensor:
        """(count,) of N(0, 1)."""
        if self.dealt is None:
            return torch.randn(self.count, generator=self.generator)
        place = self.dealt.double().clamp(_EDGE, 1 - _EDGE)
        return ((2 * place - 1).erfinv() * 2**0.5).float()

    def again(self, buckets: int) -> Source:
        """Another try: the same, if numbers are drawn, else in buckets of a new order."""
        if self.dealt is None:
            return self
        rounds = -(-self.count // buckets)
        order = torch.cat([torch.randperm(buckets, generator=self.generator) for _ in range(rounds)])[: self.count]
        return Source(self.count, self.generator, _within(order, buckets, self.generator))


def deal(buckets: int, first: int, count: int, seeded: list[torch.Generator], generator: torch.Generator) -> Tensor:
    """(count,) from 0 to 1 for items number `first` and after: any `buckets` from a multiple of that lie in one each.

    Args:
        seeded: generators of the rounds of `buckets` items, from that which `first` lies in.
        generator: of where in its bucket each lies.
    """
    order = torch.cat([torch.randperm(buckets, generator=one) for one in seeded])
    start = first % buckets
    return _within(order[start : start + count], buckets, generator)


def _within(order: Tensor, buckets: int, generator: torch.Generator) -> Tensor:
    return (order + torch.rand(len(order), generator=generator)) / buckets
