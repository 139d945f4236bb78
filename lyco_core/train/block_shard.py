"""Blocks whose frozen weights are divided over the processes of a training, and come together while they are needed.

Each process keeps a slice of every block's bytes on its device, whatever dtypes and classes they are of, and the slices
are gathered into the two buffers of `BlockSwap`, a block ahead. Nothing of a frozen weight is rounded, summed or sent
back, so that the result is, bit for bit, that of processes that have all of it.

An exchange takes all processes at once, and in the same order, although one may have nothing to compute in a batch,
another two sizes of captions, and dropout may end a backward pass early. So whatever a process needs, it goes one way
through the blocks in each pass, on to its end, and every process makes as many passes. (torch's `fully_shard` gathers
what a process happens to need: it waits forever for one that needs nothing.)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..errors import TrainError
from .block_swap import BlockSwap
from .distributed import World
from .swapped_block import Block

__all__ = ["BlockShard", "Passes"]

_gather: Any = getattr(dist, "all_gather_single", None) or getattr(dist, "all_gather_into_tensor", None)
"""torch's own, under the name that the newest does not call deprecated; None in a torch without processes."""


class Passes(Protocol):
    """What a pass of a model is inside of, where its processes exchange weights."""

    def one_pass(self, *, backward: bool) -> AbstractContextManager[None]:
        """See `BlockShard`."""
        ...


class BlockShard(BlockSwap):
    """See the module; the blocks are in the order in which they compute."""

    def __init__(self, blocks: Sequence[Sequence[nn.Module]], device: torch.device, world: World) -> None:
        """`blocks`: of each, its modules whose weight is divided; what they have now stays where it is."""
        super().__init__(blocks, device, slices=world.processes)
        self._slices = {block: _slice_of(block, device, world) for block in self._blocks}
        self._coming: list[tuple[Block, Any] | None] = [None] * len(self._buffers)
        """The exchange into each buffer that is not awaited yet, and of what."""
        self._way: deque[int] | None = None
        """The blocks that the pass has yet to come to."""

    @property
    def kept(self) -> int:
        """How many bytes this process keeps of the blocks."""
        return sum(part.nbytes for part in self._slices.values())

    @contextmanager
    def one_pass(self, *, backward: bool) -> Generator[None]:
        """Inside, the model computes once, forward and perhaps backward, or not at all.

        Raises:
            TrainError: its blocks compute in another order than they were told in.
        """
        there = range(len(self._blocks))
        self._way = deque([*there, *reversed(there[:-1])] if backward else there)
        try:
            yield
            while self._way:
                self._go_on()
        finally:
            self._way = None

    def bring(self, module: nn.Module) -> None:
        """Have a module's weight on the device; outside of a pass, every process asks for the same ones."""
        if self._way is None:
            super().bring(module)
            return
        rank = self._rank_of.get(module)
        while rank is not None and rank != self._current:
            if not self._way:
                raise TrainError(
                    "the model's blocks do not compute one after the other, so that no order is known in which to "
                    "exchange them; set shard_blocks to false"
                )
            self._go_on()

    def _go_on(self) -> None:
        assert self._way
        if (rank := self._way.popleft()) != self._current:
            self._visit(rank)

    def _fill(self, slot: int, block: Block) -> None:
        whole = self._buffers[slot][: block.size]
        self._coming[slot] = block, _gather(whole, self._slices[block], async_op=True)

    def _await(self, slot: int) -> None:
        if (coming := self._coming[slot]) is not None:
            block, exchange = coming
            exchange.wait()
            block.bind_to(self._buffers[slot])
            self._coming[slot] = None


def _slice_of(block: Block, device: torch.device, world: World) -> Tensor:
    """This process's part of a block's bytes."""
    whole = torch.zeros(block.size, dtype=torch.uint8)
    block.copy_to(whole)
    return whole.view(world.processes, -1)[world.rank].to(device, copy=True)
