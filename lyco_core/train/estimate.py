"""How much memory of a device a step of training takes, by what takes it, before there is one."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Sequence

from torch import nn

from .options import TrainOptions

__all__ = ["GIB", "KEPT", "Estimate", "activations", "adapter_parts", "width_of"]

GIB = 2**30

KEPT = 32
"""How many numbers autograd keeps of a block for each that the block is given. Measured: 24 to 35, whatever the family;
tests/host/test_training_memory.py has it."""

IN_FLIGHT = 1.25
"""With the gradients and results that come and go beside what is kept."""

_STATE = {"adamw": 2.0, "adamw8bit": 0.52, "prodigy": 4.0}
"""float32 numbers that an optimizer keeps of each that it moves; of a class by its path, as many as AdamW."""


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
    processes: int = 1
    """Over how many devices, each with as much, the blocks' weights are divided."""
    models: int = 1
    """How many models compute, one at a time."""
    waiting: bool = False
    """Whether only the one that computes is on the device."""

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
        parts = ", ".join(f"{name} {_gigabytes(size)}" for name, size in self.parts().items())
        free = f"; free {_gigabytes(self.free)}" if self.free else ""
        swapped = f"; {self.swapped} of {self.blocks} blocks are swapped" if self.swapped else ""
        divided = f"; the blocks are divided over {self.processes} processes" if self.processes > 1 else ""
        waits = "; the model that does not compute waits in the computer's memory" if self.waiting else ""
        both = "; both models are there" if self.models > 1 and not self.waiting else ""
        return f"needs about {_gigabytes(self.total)} GB: {parts}{free}{swapped}{divided}{waits}{both}"


def _gigabytes(size: int) -> str:
    return f"{size / GIB:.1f}" if size >= GIB / 10 else f"{size / GIB:.2f}"


def width_of(linears: Sequence[tuple[int, int]]) -> int:
    """How many numbers a block is given for each token, if its Linears have these (in, out)."""
    return Counter(inner for inner, _ in linears).most_common(1)[0][0] if linears else 0


def activations(widths: Sequence[int], tokens: int, size: int, *, checkpointing: bool, offload: bool) -> int:
    """What the blocks keep for the backward pass, at its height.

    Args:
        tokens: of all that is computed at once.
        size: bytes of a number.
        checkpointing: each block is computed again, so that one at a time keeps all it needs.
        offload: what the others keep, their inputs, waits elsewhere.
    """
    given = [tokens * width * size for width in widths]
    largest = max(given, default=0)
    if not checkpointing:
        return int(sum(given) * KEPT + largest * KEPT * (IN_FLIGHT - 1))
    return int((2 * largest if offload else sum(given)) + largest * KEPT * IN_FLIGHT)


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
        state = int(gradients * _STATE.get(kind, _STATE["adamw"]))
    return {"adapter": all_of_them + averaged, "gradients": gradients, "optimizer": state}


def _factored(shape: tuple[int, ...]) -> int:
    """How many numbers Adafactor keeps of a parameter: of each matrix its rows and columns."""
    if len(shape) < 2:
        return math.prod(shape)
    return math.prod(shape[:-1]) + math.prod(shape[:-2]) * shape[-1]
