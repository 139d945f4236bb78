"""What an adapter does to a linear module's function, one after another as patches do."""

from __future__ import annotations

import dataclasses
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from ..adapters import BOFT, OFT, Adapter, Additive

__all__ = [
    "Added",
    "Effect",
    "Function",
    "InputChanged",
    "OutputGained",
    "OutputTurned",
    "computed",
]

Function = Callable[[Tensor], Tensor]
"""(…, in) -> (…, out); what it returns is the caller's to change."""


def computed(effects: Sequence[Effect], base: Function, bias: Tensor | None, x: Tensor) -> Tensor:
    """The changed module's output.

    Args:
        effects: moved to x's device and dtype.
        base: the module's own function, its bias added.
        bias: (out,), as `base` adds it; None if it adds none. Used where an effect does more than add.
        x: (…, in).
    """
    if all(effect.adds for effect in effects):
        output = _own(base(x))
        for effect in effects:
            effect.add_(x, output)
        return output

    def weight_alone(x: Tensor) -> Tensor:
        output = base(x)
        return _own(output) if bias is None else output - bias.to(output)

    function: Function = weight_alone
    for effect in effects:
        function = functools.partial(effect, function)
    output = function(x)
    return output if bias is None else output.add_(bias.to(output))


def _own(output: Tensor) -> Tensor:
    """Nobody else has a Linear's output yet, but autograd may."""
    return output.clone() if output.requires_grad else output


E = TypeVar("E", bound="Effect")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Effect(ABC):
    """What a part does to a module's function."""

    rows: tuple[int, int] | None
    """start:stop of the outputs that it changes; None for all."""
    adds: ClassVar[bool] = False
    """Whether it only adds to the output, so that a bias may be in it already."""

    @abstractmethod
    def __call__(self, function: Function, x: Tensor) -> Tensor:
        """The changed function's output, without a bias, as `function` is."""

    def add_(self, x: Tensor, output: Tensor) -> None:
        """Add to the output of x in place: for what `adds`."""
        raise NotImplementedError

    def band(self, output: Tensor) -> Tensor:
        """A view of the outputs that it changes."""
        return output if self.rows is None else output[..., self.rows[0] : self.rows[1]]

    def to(self: E, device: torch.device, dtype: torch.dtype) -> E:
        """A copy on `device` with its factors in `dtype`.

        What multiplies stays in float32, and is rounded with the product alone.
        """
        moved: dict[str, object] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Adapter):
                moved[field.name] = value.to(device, dtype)
            elif isinstance(value, Tensor):
                moved[field.name] = value.to(device)
        return dataclasses.replace(self, **moved)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Added(Effect):
    """y + strength * ΔW x: LoRA, LoHa, LoKr, differences."""

    adapter: Additive
    strength: float
    adds: ClassVar[bool] = True

    def __call__(self, function: Function, x: Tensor) -> Tensor:
        output = function(x)
        self.add_(x, output)
        return output

    def add_(self, x: Tensor, output: Tensor) -> None:
        self.adapter.apply_to_(x, self.band(output), self.strength)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OutputGained(Effect):
    """gain * y + added_gain * ΔW x: DoRA by outputs, IA3."""

    gain: Tensor
    """(out of the rows,), float32."""
    adapter: Additive | None = None
    added_gain: Tensor | None = None

    def __call__(self, function: Function, x: Tensor) -> Tensor:
        output = function(x)
        band = self.band(output).mul_(self.gain)
        if self.adapter is not None and self.added_gain is not None:
            band.addcmul_(self.adapter.apply(x), self.added_gain.to(band.dtype))
        return output


@dataclasses.dataclass(frozen=True, kw_only=True)
class OutputTurned(Effect):
    """y + strength * (R - I) y, blocks of outputs turned into each other: OFT, BOFT."""

    adapter: OFT | BOFT
    strength: float
    turns: Tensor
    """R - I of every block, float32."""

    def __call__(self, function: Function, x: Tensor) -> Tensor:
        output = function(x)
        band = self.band(output)
        # What acts on the weight's rows acts on outputs alike; each token is a column.
        columns = band.reshape(-1, band.shape[-1]).t()
        turned = self.adapter.turned(columns, self.turns.to(band.dtype))
        band.add_(turned.t().reshape(band.shape), alpha=self.strength)
        return output


@dataclasses.dataclass(frozen=True, kw_only=True)
class InputChanged(Effect):
    """W (gain * x + mixed x) + ΔW (added_gain * x): DoRA by inputs, IA3 on inputs, GLoRA.

    Of a convolution, whose x is patches, `gain` and `mixed` may be of its input channels, alike at every position of
    the kernel.
    """

    gain: Tensor | None = None
    """(in,), float32."""
    mixed: Additive | None = None
    """(in, in): what is added to x before it meets the weight."""
    adapter: Additive | None = None
    added_gain: Tensor | None = None
    """(in,), or one number; float32."""
    strength: float = 1.0
    """What `mixed` and `adapter` are multiplied by."""

    def __call__(self, function: Function, x: Tensor) -> Tensor:
        changed = x if self.gain is None else (x * _at_each(self.gain, x)).to(x.dtype)
        if self.mixed is not None:
            changed = changed.add(_by_channel(self.mixed, x), alpha=self.strength)
        output = function(changed)
        if self.rows is not None:  # the other outputs are of x as it is
            others = function(x)
            self.band(others).copy_(self.band(output))
            output = others
        if self.adapter is not None:
            gained = x if self.added_gain is None else (x * self.added_gain).to(x.dtype)
            self.adapter.apply_to_(gained, self.band(output), self.strength)
        return output


def _at_each(gain: Tensor, x: Tensor) -> Tensor:
    """(channels,) -> one for each of x's last dimension, which has a kernel's positions of every channel together."""
    return gain if gain.numel() in (1, x.shape[-1]) else gain.repeat_interleave(x.shape[-1] // gain.numel())


def _by_channel(mixed: Additive, x: Tensor) -> Tensor:
    """What (channels, channels) adds to x, at each position of a kernel by itself."""
    channels = mixed.shape[1]
    if channels == x.shape[-1]:
        return mixed.apply(x)
    positions = x.reshape(*x.shape[:-1], channels, -1).transpose(-1, -2)
    return mixed.apply(positions).transpose(-1, -2).flatten(-2)
