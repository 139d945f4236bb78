"""Which items each batch has: the same on every machine for the same seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

from ..errors import TrainError
from .distributed import World
from .items import Item

__all__ = ["Batches", "passes_of", "require_items", "require_one_shape"]

T = TypeVar("T")


class Batches:
    """Epochs of batches of items whose latents have one shape.

    An epoch has every item `repeats` times. Its order depends on the seed and its number only, so
    a resumed training finds its place by counting.
    """

    def __init__(self, items: Sequence[Item], batch_size: int, processes: int, seed: int) -> None:
        self.items = items
        self._seed = seed
        self._buckets: dict[tuple[object, ...], list[int]] = {}
        for index, item in enumerate(items):
            size = (item.batch_size or batch_size) * processes
            self._buckets.setdefault((size, *item.latent.shape), []).extend([index] * item.repeats)
        self._epoch: tuple[int, list[list[int]]] = (-1, [])

    def __len__(self) -> int:
        """How many batches an epoch has."""
        return sum(-(-len(indices) // size_of(bucket)) for bucket, indices in self._buckets.items())

    def __getitem__(self, number: int) -> list[int]:
        """The `number`-th batch since the beginning, as indices into `items`, for all processes together."""
        epoch, position = divmod(number, len(self))
        if self._epoch[0] != epoch:
            self._epoch = epoch, self._ordered(epoch)
        return self._epoch[1][position]

    def _ordered(self, epoch: int) -> list[list[int]]:
        shuffled = random.Random(f"{self._seed} {epoch}")
        batches: list[list[int]] = []
        for bucket, indices in self._buckets.items():
            size, order = size_of(bucket), indices.copy()
            shuffled.shuffle(order)
            batches += (order[start : start + size] for start in range(0, len(order), size))
        shuffled.shuffle(batches)
        return batches


def size_of(bucket: tuple[object, ...]) -> int:
    """How many items a batch of a bucket has at most."""
    size = bucket[0]
    assert isinstance(size, int)
    return size


def passes_of(groups: Callable[[list[T]], list[list[int]]], batch: Sequence[T], world: World) -> list[list[int]]:
    """What of a batch a process computes at once, as indices: in as many passes as any process has, some of nothing.

    Args:
        groups: which of some can be computed at once.
    """
    shares = [range(rank, len(batch), world.processes) for rank in range(world.processes)]
    passes = [[[share[i] for i in some] for some in groups([batch[i] for i in share])] for share in shares]
    mine = passes[world.rank]
    return mine + [[] for _ in range(max(map(len, passes)) - len(mine))]


def require_items(items: Sequence[Item]) -> None:
    """Raises `TrainError` for no items, or shapes that no latent has."""
    if not items:
        raise TrainError("the dataset is empty: there is nothing to learn from; give at least one latent")
    for item in items:
        if item.latent.dim() not in (2, 3, 4) or not item.latent.numel():
            raise TrainError(
                f"{item.name}: the latent is {list(item.latent.shape)}, expected (C, H, W) or (C, F, H, W), or (C, L) "
                "of sound"
            )


def require_one_shape(items: Sequence[Item]) -> None:
    """Raises `TrainError` for latents of several shapes."""
    shapes = {tuple(item.latent.shape) for item in items}
    if len(shapes) > 1:
        listed = ", ".join("x".join(map(str, shape)) for shape in sorted(shapes)[:3])
        raise TrainError(
            f"the latents have {len(shapes)} different shapes ({listed}); set enable_bucket to train each size in "
            "batches of its own, or resize the images"
        )
