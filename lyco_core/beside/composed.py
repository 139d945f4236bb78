"""Effects that take the function apart, or are made of others: turned inputs, reordered outputs, bands of rows."""

from __future__ import annotations

import dataclasses
import functools

import torch
from torch import Tensor

from ..adapters import Additive
from ..adapters.oftv2 import rotation
from .effects import Effect, Function

__all__ = ["Recomposed", "Reordered", "Several"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recomposed(Effect):
    """y + strength * (gain * (W + ΔW) x' - y), x' being x turned, or multiplied: OFTv2, BoRA."""

    turns: Tensor | None = None
    """R - I of every block of inputs, float32."""
    input_gain: Tensor | None = None
    """(in,), float32."""
    adapter: Additive | None = None
    gain: Tensor | None = None
    """(out of the rows,), float32."""
    strength: float

    def __call__(self, function: Function, x: Tensor) -> Tensor:
        changed = x if self.input_gain is None else (x * self.input_gain).to(x.dtype)
        if self.turns is not None:
            alone = self.adapter is None and self.gain is None  # then it is linear in x: one product for any strength
            changed = x.add(rotation(x, self.turns.to(x.dtype)), alpha=self.strength if alone else 1.0)
            if alone:
                return self._in_its_band(function(changed), function, x, 1.0)
        made = function(changed)
        band = self.band(made)
        if self.adapter is not None:
            band.add_(self.adapter.apply(changed))
        if self.gain is not None:
            band.mul_(self.gain)
        return self._in_its_band(made, function, x, self.strength)

    def _in_its_band(self, made: Tensor, function: Function, x: Tensor, strength: float) -> Tensor:
        """The function's own output of x, but in the band, which goes so far towards `made`."""
        if self.rows is None and strength == 1:
            return made
        output = function(x)
        band = self.band(output)
        band.add_(self.band(made) - band, alpha=strength)
        return output


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reordered(Effect):
    """An effect on outputs in the trainer's order, where the module has them in another."""

    effect: Effect
    """What it does to those of `rows`, of which it is all."""
    order: Tensor
    """(out of the rows,): which of the trainer's outputs each of the module's is."""

    def __call__(self, function: Function, x: Tensor) -> Tensor:
        back = self.order.argsort()
        made = self.effect(lambda x: self.band(function(x))[..., back], x)[..., self.order]
        if self.rows is None:
            return made
        output = function(x)
        self.band(output).copy_(made)
        return output

    def to(self, device: torch.device, dtype: torch.dtype) -> Reordered:
        return dataclasses.replace(self, effect=self.effect.to(device, dtype), order=self.order.to(device))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Several(Effect):
    """Effects on rows of their own, one after another."""

    effects: tuple[Effect, ...]

    def __call__(self, function: Function, x: Tensor) -> Tensor:
        for effect in self.effects:
            function = functools.partial(effect, function)
        return function(x)

    def to(self, device: torch.device, dtype: torch.dtype) -> Several:
        return dataclasses.replace(self, effects=tuple(effect.to(device, dtype) for effect in self.effects))
