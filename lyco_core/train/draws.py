"""What is drawn for a batch: timesteps, noise, and whose caption is dropped.

Everything comes from a generator of its own for each batch, seeded by the training's seed and the
batch's number. So a resumed training draws what the uninterrupted one would have, and several
processes draw what a single one would for the same batch.
"""

from __future__ import annotations

import dataclasses

import numpy
import torch
from torch import Tensor

from .noise import sample_times
from .options import TrainOptions
from .two_models import one_side

__all__ = ["Draws", "draw", "generator_of", "seed_of"]


@dataclasses.dataclass(frozen=True)
class Draws:
    """What is drawn for one batch: an entry for each item, on the CPU."""

    t: Tensor
    """(n,): the timesteps, from 0 at the data to 1 at the noise."""
    noise: Tensor
    """(n, C, …)."""
    dropped: Tensor
    """(n,): whether the empty caption stands in for the item's own."""


def draw(options: TrainOptions, number: int, count: int, shape: torch.Size) -> Draws:
    """The draws for batch number `number`, of `count` latents of one shape."""
    generator = generator_of(options.run.seed, number)
    size = (shape[-2], shape[-1])
    t = one_side(
        lambda many: sample_times(options.noise, many, size, generator), count, options.noise.timestep_boundary
    )
    noise = torch.randn((count, *shape), generator=generator)
    dropped = torch.rand(count, generator=generator) < options.run.caption_dropout_rate
    return Draws(t, noise, dropped)


def generator_of(*numbers: int) -> torch.Generator:
    """A generator of the CPU, seeded by several numbers."""
    return torch.Generator().manual_seed(seed_of(*numbers))


def seed_of(*numbers: int) -> int:
    """One seed out of several numbers, such that near ones lead far apart. Python shifts: NumPy before 2 cannot."""
    return int(numpy.random.SeedSequence(numbers).generate_state(1, numpy.uint64)[0]) >> 1
