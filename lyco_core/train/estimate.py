"""How much memory of a device a step of training takes, by what takes it, before there is one."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Sequence

from torch import nn

from .options import TrainOptions

__all__ = ["GIB", "BlockWidth", "Estimate", "activations", "adapter_parts"]

GIB = 2**30

KEPT = 1.6
"""What autograd keeps of a block, as a part of what its Linears read and write; tests/host/test_memory.py has it."""

IN_FLIGHT = 1.25
"""The gradients and results that come and go beside what is kept, as a part of it."""

_STATE = {"adamw": 2.0, "adamw8bit": 0.52, "prodigy": 4.0}
"""float32 numbers that an optimizer keeps of each that it moves."""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Bytes on the device, by what takes them."""

    weights: int
    """Those of the model that stay there, and the buffers of those that come and go."""
    activations: int
    adapter: int = 0
    gradients: int = 0
    optimizer: int = 0
    free: int = 0
    """What was free before anything was loaded; 0: unknown."""
    swapped: int = 0
    blocks: int = 0
    """How many blocks the model has, of which `swapped` stay in the computer's memory."""

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self.parts().values())

    def parts(self) -> dict[str, int]:
        """What takes memory -> bytes."""
        names = ("weights", "activations", "adapter", "gradients", "optimizer")
        return {name: getattr(self, name) for name in names}

    def line(self) -> str:
        """In words, in GB of 2**30 bytes."""
        parts = ", ".join(f"{name} {size / GIB:.1f}" for name, size in self.parts().items())
        free = f"; free {self.free / GIB:.1f}" if self.free else ""
        swapped = f"; {self.swapped} of {self.blocks} blocks are swapped" if self.swapped else ""
        return f"needs about {self.total / GIB:.1f} GB: {parts}{free}{swapped}"


@dataclasses.dataclass(frozen=True)
class BlockWidth:
    """How many numbers a block handles for each token."""

    hidden: int
    """Those that it is given."""
    all: int
    """Those that its Linears read and write."""

    @classmethod
    def of(cls, linears: Sequence[tuple[int, int]]) -> BlockWidth:
        """The widths of a block whose Linears have these (in, out)."""
        if not linears:
            return cls(0, 0)
        hidden = Counter(inner for inner, _ in linears).most_common(1)[0][0]
        return cls(hidden, sum(inner + outer for inner, outer in linears))


def activations(widths: Sequence[BlockWidth], tokens: int, size: int, *, checkpointing: bool, offload: bool) -> int:
    """What the blocks keep for the backward pass, at its height.

    Args:
        tokens: of all that is computed at once.
        size: bytes of a number.
        checkpointing: each block is computed again, so that one at a time keeps all it needs.
        offload: what the others keep, their inputs, waits elsewhere.
    """
    live = [tokens * width.all * size * KEPT for width in widths]
    if not checkpointing:
        return int(sum(live) + max(live, default=0) * (IN_FLIGHT - 1))
    inputs = [tokens * width.hidden * size for width in widths]
    return int((max(inputs, default=0) * 2 if offload else sum(inputs)) + max(live, default=0) * IN_FLIGHT)


def adapter_parts(parameters: Iterable[nn.Parameter], options: TrainOptions) -> dict[str, int]:
    """`Estimate`'s adapter, gradients and optimizer."""
    parameters = list(parameters)
    all_of_them = sum(parameter.nbytes for parameter in parameters)
    averaged = all_of_them if options.run.ema_decay else 0
    moved = [parameter for parameter in parameters if parameter.requires_grad]
    gradients = sum(parameter.nbytes for parameter in moved)
    kind = options.optimizer.optimizer_type
    if kind == "adafactor":
        state = sum(4 * _factored(tuple(parameter.shape)) for parameter in moved)
    else:
        state = int(gradients * _STATE[kind])
    return {"adapter": all_of_them + averaged, "gradients": gradients, "optimizer": state}


def _factored(shape: tuple[int, ...]) -> int:
    """How many numbers Adafactor keeps of a parameter: of each matrix its rows and columns."""
    if len(shape) < 2:
        return math.prod(shape)
    return math.prod(shape[:-1]) + math.prod(shape[:-2]) * shape[-1]
