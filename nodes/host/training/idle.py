"""A model whose frozen weights leave the device while another one computes, and come back to it unchanged.

They stay in the computer's memory, from where they are copied to the device; nothing is copied back.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from ....lyco_core.train.block_swap import BlockSwap
from ....lyco_core.train.swapped_block import known_parts
from .linears import linears_of
from .placing import pinned


class Idle:
    """The weights of one model that come and go; those of swapped blocks are its `BlockSwap`'s."""

    def __init__(self) -> None:
        self._device = torch.device("cpu")
        self._held: list[tuple[nn.Module, str, Tensor]] = []

    def hold(self, model: nn.Module, without: AbstractSet[nn.Module], device: torch.device) -> None:
        """A `placing.Move`."""
        self._device = device
        for module in model.modules():
            for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
                if module not in without or name != "weight":
                    self._held.append((module, name, tensor))
        self.come()

    def pin(self, model: nn.Module, undo: ExitStack) -> None:
        """Have the memory of the weights, which are all in the computer's, stay where it is."""
        for module in linears_of(model).values():
            pinned(module, undo)

    def come(self, swap: BlockSwap | None = None) -> None:
        """Have the weights on the device."""
        if swap is not None:
            swap.wake()
        for module, name, tensor in self._held:
            moved = _copied(tensor, self._device)
            parameter = isinstance(tensor, nn.Parameter)
            setattr(module, name, nn.Parameter(moved, requires_grad=False) if parameter else moved)

    def go(self, swap: BlockSwap | None = None) -> None:
        """Have nothing of them on the device."""
        if swap is not None:
            swap.rest()
        for module, name, tensor in self._held:
            setattr(module, name, tensor)


def _copied(tensor: Tensor, device: torch.device) -> Tensor:
    """A weight of any class elsewhere, also if that is where it is."""
    if (known := known_parts(tensor)) is None:
        return tensor.to(device)
    parts, rebuilt = known
    return rebuilt([part.to(device, copy=True) for part in parts])
