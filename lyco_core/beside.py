"""Adapters beside a weight: what a linear module gives once its weight is changed, while the weight stays as it is.

Quantized weights keep their numbers, and nothing is rounded to their precision. Every algorithm is linear in the
weight, W' = W + strength * ΔW(W), so each is one of four effects on the module's function x -> W x: something is added
to its output (LoRA, LoHa, LoKr), its output is multiplied (DoRA by outputs, IA3) or turned (OFT, BOFT), or its input is
changed (DoRA by inputs, IA3 on inputs, GLoRA). Effects follow each other as patches do.
"""

from __future__ import annotations

import dataclasses
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from .adapters import BOFT, IA3, OFT, Adapter, DoRA, GLoRA
from .adapters.base import band_size
from .errors import AdapterError

__all__ = ["Effect", "Part", "computed", "settled"]

Function = Callable[[Tensor], Tensor]
"""(…, in) -> (…, out); what it returns is the caller's to change."""

ReadRows = Callable[[int, int], Tensor]
"""start, stop -> those rows of a module's weight, (stop - start, in), float32, a copy."""


@dataclasses.dataclass(frozen=True)
class Part:
    """One adapter for a module, or for some rows of its weight."""

    adapter: Adapter
    strength: float
    rows: tuple[int, int] | None = None
    """start:stop in the weight; None for all of them."""
    order: Tensor | None = None
    """(out,): which of the adapter's rows each row of the weight is, where their orders differ; only with all rows."""

    def change_(self, band: Tensor, start: int) -> None:
        """Change rows start:… of the weight in place, as a patch does."""
        if self.order is not None:
            band.copy_(self.adapter.add_to_(band[self.order.argsort()], self.strength)[self.order])
            return
        first, last = self.rows or (0, start + band.shape[0])
        low, high = max(first, start), min(last, start + band.shape[0])
        if low < high:
            self.adapter.add_band_(band[low - start : high - start], low - first, self.strength)

    @property
    def whole(self) -> bool:
        """Whether its rows depend on each other, so that they cannot be changed by bands."""
        return self.order is not None or (self.adapter.needs_base and self.adapter.rows(0, 1) is None)


def settled(parts: Sequence[Part], read: ReadRows, shape: tuple[int, int], device: torch.device) -> tuple[Effect, ...]:
    """The parts as effects, in their order; what depends on the weight is computed, once.

    Args:
        parts: for one module.
        read: its weight's rows; only called where a norm must be known.
        shape: (out, in) of the weight.
        device: on which norms are computed.

    Raises:
        AdapterError: a part has no effect beside a weight.
    """
    effects: list[Effect] = []
    for index, part in enumerate(parts):
        before = parts[:index]
        gain = _dora_gain(part, before, read, shape[0]) if isinstance(part.adapter, DoRA) else None
        effect = _effect_of(part, gain, shape[1], device)
        effects.append(effect if part.order is None else Reordered(rows=None, effect=effect, order=part.order))
    return tuple(effects)


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
    """Outputs that it concerns; None for all."""
    adds: ClassVar[bool] = False
    """Whether it only adds to the output, so that a bias may be in it already."""

    @abstractmethod
    def __call__(self, function: Function, x: Tensor) -> Tensor:
        """The changed function's output, without a bias, as `function` is."""

    def add_(self, x: Tensor, output: Tensor) -> None:
        """Add to the output of x in place: for what `adds`."""
        raise NotImplementedError

    def band(self, output: Tensor) -> Tensor:
        """A view of the outputs that it concerns."""
        return output if self.rows is None else output[..., self.rows[0] : self.rows[1]]

    def to(self: E, device: torch.device, dtype: torch.dtype) -> E:
        """Its factors there in `dtype`; what multiplies stays in float32, and is rounded with the product alone."""
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

    adapter: Adapter
    strength: float
    adds: ClassVar[bool] = True

    def __call__(self, function: Function, x: Tensor) -> Tensor:
        output = function(x)
        self.add_(x, output)
        return output

    def add_(self, x: Tensor, output: Tensor) -> None:
        self.band(output).add_(self.adapter.apply(x), alpha=self.strength)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OutputGained(Effect):
    """gain * y + added_gain * ΔW x: DoRA by outputs, IA3."""

    gain: Tensor
    """(out of the rows,), float32."""
    adapter: Adapter | None = None
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
    """W (gain * x + mixed x) + ΔW (added_gain * x): DoRA by inputs, IA3 on inputs, GLoRA."""

    gain: Tensor | None = None
    """(in,), float32."""
    mixed: Adapter | None = None
    """(in, in): what is added to x before it meets the weight."""
    adapter: Adapter | None = None
    added_gain: Tensor | None = None
    """(in,), or one number; float32."""
    strength: float = 1.0
    """Of `mixed` and `adapter`."""

    def __call__(self, function: Function, x: Tensor) -> Tensor:
        changed = x if self.gain is None else (x * self.gain).to(x.dtype)
        if self.mixed is not None:
            changed = changed.add(self.mixed.apply(x), alpha=self.strength)
        output = function(changed)
        if self.rows is not None:  # the other outputs are of x as it is
            others = function(x)
            self.band(others).copy_(self.band(output))
            output = others
        if self.adapter is not None:
            gained = x if self.added_gain is None else (x * self.added_gain).to(x.dtype)
            self.band(output).add_(self.adapter.apply(gained), alpha=self.strength)
        return output


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reordered(Effect):
    """An effect on outputs in the trainer's order, where the module has them in another."""

    effect: Effect
    order: Tensor
    """(out,): which of the trainer's outputs each of the module's is."""

    def __call__(self, function: Function, x: Tensor) -> Tensor:
        back = self.order.argsort()
        return self.effect(lambda x: function(x)[..., back], x)[..., self.order]

    def to(self, device: torch.device, dtype: torch.dtype) -> Reordered:
        return dataclasses.replace(self, effect=self.effect.to(device, dtype), order=self.order.to(device))


def _effect_of(part: Part, gain: Tensor | None, width: int, device: torch.device) -> Effect:
    adapter, strength, rows = part.adapter, part.strength, part.rows
    if isinstance(adapter, DoRA) and gain is not None:
        if adapter.axis == 0:
            return OutputGained(
                rows=rows, gain=1 + strength * (gain - 1), adapter=adapter.inner, added_gain=strength * gain
            )
        per_input = gain.repeat_interleave(width // gain.numel())
        return InputChanged(
            rows=rows,
            gain=1 + strength * (per_input - 1),
            adapter=adapter.inner,
            added_gain=per_input,
            strength=strength,
        )
    if isinstance(adapter, IA3):
        factors = 1 + strength * adapter.weight.to(device, torch.float32).flatten()
        return InputChanged(rows=rows, gain=factors) if adapter.on_input else OutputGained(rows=rows, gain=factors)
    if isinstance(adapter, GLoRA):
        return InputChanged(rows=rows, mixed=adapter.on_inputs(), adapter=adapter.added(), strength=strength)
    if isinstance(adapter, OFT | BOFT):
        turns = adapter.turns(device)
        return OutputTurned(rows=rows, adapter=adapter, strength=strength, turns=turns)
    if adapter.needs_base:
        raise AdapterError(f"a {adapter.title} has no effect beside a weight that is known here; patch the weights")
    return Added(rows=rows, adapter=adapter, strength=strength)


def _dora_gain(part: Part, before: Sequence[Part], read: ReadRows, height: int) -> Tensor:
    """magnitude / ‖W + ΔW‖ for each row of the part, or for each input, float32; W as the parts before leave it."""
    dora = part.adapter
    assert isinstance(dora, DoRA)
    first, last = part.rows or (0, height)
    whole = part.order is not None or any(other.whole for other in before)
    step = height if whole else band_size(dora.flat_shape[1])
    squares: list[Tensor] = []
    for start in range(0, height, step) if whole else range(first, last, step):
        stop = min(start + step, height if whole else last)
        band = read(start, stop)
        for other in before:
            other.change_(band, start)
        band = band if part.order is None else band[part.order.argsort()]
        low, high = max(first, start), min(last, stop)
        squares.append(dora.squares(band[low - start : high - start], low - first))
    total = torch.cat(squares) if dora.axis == 0 else torch.stack(squares).sum(dim=0)
    return dora.gain(total)
