"""Adapters as effects, with all that depends on the weight computed once."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..adapters import BOFT, IA3, OFT, Adapter, Additive, BoRA, ByType, DoRA, GLoRA, OFTv2, OnBase, SplitOFT, Swapped
from ..adapters.base import band_size
from .composed import Recomposed, Reordered, Several
from .effects import Added, Effect, InputChanged, OutputGained, OutputTurned

__all__ = ["Part", "effect_of", "settled"]

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
    """(out of the rows,): which of the adapter's rows each row of the weight is, where their orders differ."""

    def change_(self, band: Tensor, start: int) -> None:
        """Change rows start:… of the weight in place, as a patch does."""
        first, last = self.rows or (0, start + band.shape[0])
        if self.order is not None:
            rows = band[first:last]
            rows.copy_(self.adapter.add_to_(rows[self.order.argsort()], self.strength)[self.order])
            return
        low, high = max(first, start), min(last, start + band.shape[0])
        if low < high:
            self.adapter.add_band_(band[low - start : high - start], low - first, self.strength)

    @property
    def whole(self) -> bool:
        """Whether its rows depend on each other, so that they cannot be changed by bands."""
        return self.order is not None or (isinstance(self.adapter, OnBase) and self.adapter.rows(0, 1) is None)


def settled(
    parts: Sequence[Part], read: ReadRows, shape: tuple[int, int], device: torch.device, *, kernel: bool = False
) -> tuple[Effect, ...]:
    """The parts as effects, in their order; what depends on the weight is computed, once.

    Args:
        parts: for one module.
        read: its weight's rows; only called where a norm must be known.
        shape: (out, in) of the weight.
        device: on which norms are computed.
        kernel: whether the module is a convolution.
    """
    weight = _Weight(read, shape, device, kernel)
    effects: list[Effect] = []
    for index, part in enumerate(parts):
        before = parts[:index]
        if part.order is None:
            effects.append(effect_of(part.adapter, part, before, weight))
        else:
            effects.append(_reordered(part.adapter, part.order, part, before, weight))
    return tuple(effects)


@dataclasses.dataclass(frozen=True)
class _Weight:
    """What an effect may be computed from."""

    read: ReadRows
    shape: tuple[int, int]
    device: torch.device
    kernel: bool


@ByType
def effect_of(adapter: Adapter, part: Part, before: Sequence[Part], weight: _Weight) -> Effect:
    """What the part's adapter does to the module's function, after the parts before."""
    ...


@effect_of.register(Additive)
def _(adapter: Additive, part: Part, before: Sequence[Part], weight: _Weight) -> Added:
    return Added(rows=part.rows, adapter=adapter, strength=part.strength)


@effect_of.register(DoRA)
def _(adapter: DoRA, part: Part, before: Sequence[Part], weight: _Weight) -> OutputGained | InputChanged:
    gain, strength = _dora_gain(adapter, part, before, weight), part.strength
    if adapter.axis == 0:
        return OutputGained(
            rows=part.rows, gain=1 + strength * (gain - 1), adapter=adapter.inner, added_gain=strength * gain
        )
    per_input = gain.repeat_interleave(weight.shape[1] // gain.numel())
    return InputChanged(
        rows=part.rows,
        gain=1 + strength * (per_input - 1),
        adapter=adapter.inner,
        added_gain=per_input,
        strength=strength,
    )


@effect_of.register(IA3)
def _(adapter: IA3, part: Part, before: Sequence[Part], weight: _Weight) -> OutputGained | InputChanged:
    factors = 1 + part.strength * adapter.weight.to(weight.device, torch.float32).flatten()
    kind = InputChanged if adapter.on_input else OutputGained
    return kind(rows=part.rows, gain=factors)


@effect_of.register(GLoRA)
def _(adapter: GLoRA, part: Part, before: Sequence[Part], weight: _Weight) -> InputChanged:
    return InputChanged(rows=part.rows, mixed=adapter.on_inputs(), adapter=adapter.added(), strength=part.strength)


@effect_of.register(OFT, BOFT)
def _(adapter: OFT | BOFT, part: Part, before: Sequence[Part], weight: _Weight) -> OutputTurned:
    return OutputTurned(rows=part.rows, adapter=adapter, strength=part.strength, turns=adapter.turns(weight.device))


@effect_of.register(SplitOFT)
def _(adapter: SplitOFT, part: Part, before: Sequence[Part], weight: _Weight) -> Several:
    first = part.rows[0] if part.rows else 0
    bands = zip(adapter.parts, itertools.pairwise(adapter.borders), strict=True)
    effects = (
        OutputTurned(
            rows=(first + start, first + stop), adapter=one, strength=part.strength, turns=one.turns(weight.device)
        )
        for one, (start, stop) in bands
    )
    return Several(rows=part.rows, effects=tuple(effects))


@effect_of.register(Swapped)
def _(adapter: Swapped, part: Part, before: Sequence[Part], weight: _Weight) -> Reordered:
    order = torch.arange(adapter.shape[0], device=weight.device).roll(adapter.shape[0] // 2)
    return _reordered(adapter.inner, order, part, before, weight)


@effect_of.register(OFTv2)
def _(adapter: OFTv2, part: Part, before: Sequence[Part], weight: _Weight) -> Recomposed:
    turns = adapter.turns(weight.device)
    if weight.kernel and not adapter.of_peft:  # which is W R, where a Linear's is W Rᵀ
        turns = turns.transpose(1, 2)
    gain = adapter.gain(torch.empty(0, dtype=torch.float32, device=weight.device))
    if adapter.inner is not None:
        gain = _dora_gain(adapter.inner, part, before, weight)
    return Recomposed(
        rows=part.rows,
        turns=turns,
        adapter=None if adapter.inner is None else adapter.inner.inner,
        gain=gain,
        strength=part.strength,
    )


@effect_of.register(BoRA)
def _(adapter: BoRA, part: Part, before: Sequence[Part], weight: _Weight) -> Recomposed:
    row, column = adapter.gains(adapter.inner.add_to_(_rows_of(part, before, weight)))
    return Recomposed(
        rows=part.rows,
        input_gain=column.flatten(),
        adapter=adapter.inner,
        gain=row.flatten(),
        strength=part.strength,
    )


def _reordered(adapter: Adapter, order: Tensor, part: Part, before: Sequence[Part], weight: _Weight) -> Reordered:
    """The effect of an adapter whose rows are those of the part in another order: to it, they are all of a weight."""

    @functools.cache
    def rows() -> Tensor:
        return _rows_of(part, before, weight)[order.argsort()]

    first, last = part.rows or (0, weight.shape[0])
    own = _Weight(
        lambda start, stop: rows()[start:stop].clone(), (last - first, weight.shape[1]), weight.device, weight.kernel
    )
    return Reordered(rows=part.rows, effect=effect_of(adapter, Part(adapter, part.strength), (), own), order=order)


def _rows_of(part: Part, before: Sequence[Part], weight: _Weight) -> Tensor:
    """All rows of the part, as the parts before leave them; float32."""
    whole = weight.read(0, weight.shape[0])
    for other in before:
        other.change_(whole, 0)
    first, last = part.rows or (0, weight.shape[0])
    return whole[first:last]


def _dora_gain(dora: DoRA, part: Part, before: Sequence[Part], weight: _Weight) -> Tensor:
    """magnitude / ‖W + ΔW‖ for each row of the part, or for each input, float32; W as the parts before leave it."""
    height = weight.shape[0]
    first, last = part.rows or (0, height)
    whole = any(other.whole for other in before)
    step = height if whole else band_size(dora.flat_shape[1], weight.device)
    squares: list[Tensor] = []
    for start in range(0, height, step) if whole else range(first, last, step):
        stop = min(start + step, height if whole else last)
        band = weight.read(start, stop)
        for other in before:
            other.change_(band, start)
        low, high = max(first, start), min(last, stop)
        squares.append(dora.squares(band[low - start : high - start], low - first))
    total = torch.cat(squares) if dora.axis == 0 else torch.stack(squares).sum(dim=0)
    return dora.gain(total)
