"""Adapters as effects, with all that depends on the weight computed once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..adapters import BOFT, IA3, OFT, Adapter, DoRA, GLoRA
from ..adapters.base import band_size
from ..errors import AdapterError
from .effects import Added, Effect, InputChanged, OutputGained, OutputTurned, Reordered

__all__ = ["Part", "settled"]

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
