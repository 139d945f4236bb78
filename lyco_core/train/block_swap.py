"""Blocks whose frozen weights stay in the computer's memory, and come to the device while they are needed.

They are only ever copied there: nothing of them changes. Two buffers on the device hold the block that computes and the
next one, which comes meanwhile, in the order of the forward pass and then in that of the backward pass. What those
buffers still hold when a pass turns round is not copied again.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .frozen import WeightOf
from .swapped_block import Block

__all__ = ["BlockSwap", "spread"]

_BUFFERS = 2


def spread(sizes: Sequence[float], wanted: float) -> list[int]:
    """Which blocks are swapped so that as much as of `wanted` of the largest ones are, evenly over their order.

    Between two of them others compute, which gives the second the time to come.
    """
    largest, taken, owed = max(sizes), list[int](), 0.0
    for index, size in enumerate(sizes):
        owed += wanted * largest / sum(sizes) * size
        if owed >= size / 2:
            taken.append(index)
            owed -= size
    return taken


class BlockSwap:
    """See the module; the blocks are in the order in which they compute."""

    def __init__(self, blocks: Sequence[Sequence[nn.Module]], device: torch.device, *, slices: int = 1) -> None:
        """`blocks`: of each, its modules whose weight is swapped and stays where it is now; `slices`: see `Block`."""
        self._blocks = [Block(modules, slices) for modules in blocks]
        self._rank_of = {module: rank for rank, modules in enumerate(blocks) for module in modules}
        self._size = size = max((block.size for block in self._blocks), default=0)
        count = min(_BUFFERS, len(blocks))
        self._buffers = [torch.empty(size, dtype=torch.uint8, device=device) for _ in range(count)]
        self._held: list[int | None] = [None] * count
        self._current: int | None = None
        self._copies = _Copies(device, count)
        self.copied = 0
        """How many bytes were copied so far."""

    @property
    def size(self) -> int:
        """How many bytes the buffers take on the device."""
        return sum(buffer.nbytes for buffer in self._buffers)

    @property
    def modules(self) -> Iterable[nn.Module]:
        """Those whose weight is swapped."""
        return self._rank_of

    @contextmanager
    def attached(self) -> Generator[None]:
        """Inside, a module's weights are there whenever its `forward` is called."""
        before = [(module, module.__dict__.get("forward")) for module in self._rank_of]
        try:
            for module, _ in before:
                module.forward = self._bringing(module, module.forward)
            yield
        finally:
            for module, forward in before:
                if forward is None:
                    module.__dict__.pop("forward", None)
                else:  # another extension had put one there
                    module.forward = forward
            self._let_go()

    def rest(self) -> None:
        """Have nothing on the device, until `wake`."""
        self._let_go()
        self._buffers = [buffer.new_empty(0) for buffer in self._buffers]

    def wake(self) -> None:
        """Have the buffers again after `rest`."""
        self._buffers = [torch.empty(self._size, dtype=torch.uint8, device=buffer.device) for buffer in self._buffers]

    def _let_go(self) -> None:
        self._copies.finish()
        for block in self._blocks:
            block.go()
        self._held, self._current = [None] * len(self._held), None

    def _bringing(self, module: nn.Module, forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def run(*args: Any, **named: Any) -> Tensor:  # noqa: ANN401 - the module's own
            self.bring(module)
            return forward(*args, **named)

        return run

    def weights(self, weight_of: WeightOf) -> WeightOf:
        """`weight_of`, for modules whose weights may have to come first."""

        def brought(module: nn.Module, dtype: torch.dtype) -> Any:  # noqa: ANN401 - a context of the host's
            self.bring(module)
            return weight_of(module, dtype)

        return brought

    def bring(self, module: nn.Module) -> None:
        """Have a module's weight on the device, and let the next block come while its own computes."""
        rank = self._rank_of.get(module)
        if rank is not None and rank != self._current:
            self._visit(rank)

    def _visit(self, rank: int) -> None:
        """Have a block on the device, other than the one that computed, and let the next one come."""
        previous, self._current = self._current, rank
        if rank not in self._held:  # the first of all, or a pass that begins anew where the last did not end
            self._load(rank, self._held.index(previous) - 1 if previous in self._held else 0)
        here = self._held.index(rank)
        self._await(here)
        forwards = rank == 0 or (previous is not None and previous < rank < len(self._blocks) - 1)
        ahead = rank + 1 if forwards else rank - 1
        if 0 <= ahead < len(self._blocks) and ahead not in self._held:
            self._load(ahead, here - 1)

    def _load(self, rank: int, slot: int) -> None:
        """Copy a block into a buffer, of which there may be two: -1 is the other one of 0."""
        slot %= len(self._buffers)
        if (gone := self._held[slot]) is not None:
            self._blocks[gone].go()
        self._fill(slot, self._blocks[rank])
        self._held[slot] = rank
        self.copied += self._blocks[rank].size

    def _fill(self, slot: int, block: Block) -> None:
        """Begin to bring a block's weights into a buffer, once all that was begun has read what was there."""
        with self._copies.into(slot):
            block.copy_to(self._buffers[slot])
            block.bind_to(self._buffers[slot])

    def _await(self, slot: int) -> None:
        """Let what is begun from now on wait for what `_fill` began."""
        self._copies.await_(slot)


class _Copies:
    """The order between copies and arithmetic: a stream of their own, where the device has streams."""

    def __init__(self, device: torch.device, count: int) -> None:
        self._device = device
        self._module: Any = {"cuda": torch.cuda, "xpu": torch.xpu}.get(device.type)
        self._stream = self._module.Stream(device=device) if self._module else None
        self._done = [self._module.Event() for _ in range(count)] if self._module else []

    @contextmanager
    def into(self, slot: int) -> Generator[None]:
        """Inside, copies into a buffer are given to the stream, once all that was begun has read what was there."""
        if self._stream is None:
            yield
            return
        self._stream.wait_stream(self._module.current_stream(self._device))
        with self._module.stream(self._stream):
            yield
            self._done[slot].record(self._stream)

    def await_(self, slot: int) -> None:
        """Let what is begun from now on wait for the copies into a buffer."""
        if self._stream is not None:
            self._module.current_stream(self._device).wait_event(self._done[slot])

    def finish(self) -> None:
        """Wait for every copy: where they come from and go to may be freed."""
        if self._stream is not None:
            self._stream.synchronize()
