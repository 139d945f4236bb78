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

from .options import TrainOptions
from .randoms import deal
from .timesteps import sample_times
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


def draw(options: TrainOptions, number: int, count: int, shape: torch.Size, first: int = 0) -> Draws:
    """The draws for batch number `number`, of `count` latents of one shape, before which `first` items came."""
    generator = generator_of(options.run.seed, number)
    dealt = _dealt(options, first, count, generator) if options.noise.num_timestep_buckets > 1 else None
    size = (shape[-2], shape[-1])
    t = one_side(
        lambda many: sample_times(options.noise, many, size, generator, dealt=dealt),
        count,
        options.noise.timestep_boundary,
    )
    noise = torch.randn((count, *shape), generator=generator)
    if options.noise.noise_clip_std:
        bound = options.noise.noise_clip_std * float(noise.std())  # of the batch, as in Musubi
        noise = noise.clamp(-bound, bound)
    dropped = torch.rand(count, generator=generator) < options.run.caption_dropout_rate
    return Draws(t, noise, dropped)


def _dealt(options: TrainOptions, first: int, count: int, generator: torch.Generator) -> Tensor:
    buckets = options.noise.num_timestep_buckets
    rounds = range(first // buckets, (first + count - 1) // buckets + 1)
    return deal(buckets, first, count, [generator_of(options.run.seed, one, _ROUNDS) for one in rounds], generator)


_ROUNDS = 0x70_6F_6F_6C
"""Sets the generators of rounds of timesteps apart from those of batches."""


def generator_of(*numbers: int) -> torch.Generator:
    """A generator of the CPU, seeded by several numbers."""
    return torch.Generator().manual_seed(seed_of(*numbers))


def seed_of(*numbers: int) -> int:
    """One seed out of several numbers, such that near ones lead far apart. Python shifts: NumPy before 2 cannot."""
    return int(numpy.random.SeedSequence(numbers).generate_state(1, numpy.uint64)[0]) >> 1
