"""What is trained of one weight, added to what its module gives."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from .frozen import Frozen
from .trainable import Trainable

__all__ = ["Addition"]

_TrainedRows = tuple[tuple[int, int] | None, Trainable]
"""start:stop of the rows of a weight, None for all of them, and what is trained of them."""


class Addition:
    """All that is trained of one weight, as hooks on the module that has it, or in its place if it is frozen.

    The contributions are made before the module itself runs: where a checkpointed block is run again
    for the backward pass, it stops once that has what it needs, which spares the block's last module.
    """

    def __init__(self, parts: Iterable[_TrainedRows]) -> None:
        self._parts = sorted(parts, key=lambda part: part[0] or (0, 0))
        self._changes: list[Tensor | None] = []

    def forward(self, frozen: Frozen, x: Tensor) -> Tensor:
        """The output of a frozen module with all that is trained of it."""
        if len(self._parts) > 1 or self._parts[0][0] is not None:
            return self._sum([trainable(x) for _, trainable in self._parts], frozen(x))
        trainable = self._parts[0][1]
        if trainable.left_out():
            return frozen(x)
        summed = trainable.summed(x, frozen)
        return self._sum([trainable.contribution(x)], frozen(x)) if summed is None else summed

    def before(self, _: nn.Module, args: tuple[Tensor, ...]) -> None:
        """A forward pre-hook: the contributions to what the module gives for `args[0]`, (…, in)."""
        self._changes = [trainable(args[0]) for _, trainable in self._parts]

    def after(self, _: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """A forward hook: the output, (…, out), with them."""
        changes, self._changes = self._changes, []
        return self._sum(changes, output)

    def _sum(self, changes: Sequence[Tensor | None], output: Tensor) -> Tensor:
        if all(change is None for change in changes):
            return output
        change = self._joined(changes, output).to(output.dtype)
        # `change` is new and nobody else's, so the sum may take its memory.
        return change.add_(output)

    def _joined(self, changes: Sequence[Tensor | None], output: Tensor) -> Tensor:
        """The contributions side by side, as wide as `output`; zeros where nothing is trained or is dropped."""
        width, leading = output.shape[-1], output.shape[:-1]
        bands = [(*(rows or (0, width)), change) for (rows, _), change in zip(self._parts, changes, strict=True)]
        pieces: list[Tensor] = []
        end = 0
        for start, stop, change in [*bands, (width, width, None)]:
            if start > end:
                pieces.append(output.new_zeros(*leading, start - end))
            if stop > start:
                pieces.append(output.new_zeros(*leading, stop - start) if change is None else change)
            end = stop
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=-1)
