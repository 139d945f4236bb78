"""Adapters as effects, with all that depends on the weight computed once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..adapters import BOFT, IA3, OFT, Adapter, Additive, BoRA, ByType, DoRA, GLoRA, OFTv2, OnBase, Swapped
from ..adapters.base import band_size
from ..errors import AdapterError
from .effects import Added, Effect, InputChanged, OutputGained, OutputTurned, Recomposed, Reordered

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
        effect = effect_of(part.adapter, part, parts[:index], weight)
        effects.append(effect if part.order is None else Reordered(rows=None, effect=effect, order=part.order))
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


@effect_of.register(Swapped)
def _(adapter: Swapped, part: Part, before: Sequence[Part], weight: _Weight) -> Reordered:
    order = torch.arange(adapter.shape[0], device=weight.device).roll(adapter.shape[0] // 2)
    return Reordered(rows=None, effect=effect_of(adapter.inner, part, before, weight), order=order)


@effect_of.register(OFTv2)
def _(adapter: OFTv2, part: Part, before: Sequence[Part], weight: _Weight) -> Recomposed:
    if weight.kernel:
        raise AdapterError(
            f"{adapter.title} does not act beside a convolution; patch this weight, or merge the adapter into the model"
        )
    gain = adapter.gain(torch.empty(0, dtype=torch.float32, device=weight.device))
    if adapter.inner is not None:
        gain = _dora_gain(adapter.inner, part, before, weight)
    return Recomposed(
        rows=part.rows,
        turns=adapter.turns(weight.device),
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


def _rows_of(part: Part, before: Sequence[Part], weight: _Weight) -> Tensor:
    """All rows of the part, in its adapter's order, as the parts before leave them; float32."""
    whole = weight.read(0, weight.shape[0])
    for other in before:
        other.change_(whole, 0)
    first, last = part.rows or (0, weight.shape[0])
    return whole[first:last] if part.order is None else whole[part.order.argsort()]


def _dora_gain(dora: DoRA, part: Part, before: Sequence[Part], weight: _Weight) -> Tensor:
    """magnitude / ‖W + ΔW‖ for each row of the part, or for each input, float32; W as the parts before leave it."""
    height = weight.shape[0]
    first, last = part.rows or (0, height)
    whole = part.order is not None or any(other.whole for other in before)
    step = height if whole else band_size(dora.flat_shape[1])
    squares: list[Tensor] = []
    for start in range(0, height, step) if whole else range(first, last, step):
        stop = min(start + step, height if whole else last)
        band = weight.read(start, stop)
        for other in before:
            other.change_(band, start)
        band = band if part.order is None else band[part.order.argsort()]
        low, high = max(first, start), min(last, stop)
        squares.append(dora.squares(band[low - start : high - start], low - first))
    total = torch.cat(squares) if dora.axis == 0 else torch.stack(squares).sum(dim=0)
    return dora.gain(total)
