"""Where an adapter sits while its model is loaded: in the place of a module's `forward`."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from .....lyco_core.adapters import Additive
from .....lyco_core.beside import Effect, Part, computed, replace_forward, restore_forward
from .....lyco_core.beside.effects import Added
from ...protocols import Linear, ModelPatcher
from .fused import called, uncalled
from .layers import Layers, State, part_at

F = TypeVar("F", bound=Callable[..., Any])

ATTRIBUTE = "_lyco_seats"
"""Under which a ComfyUI model holds its `Seats`."""

KEPT = 2
"""Strengths of which a module's effects are kept where making them means reading its weight."""


def _outside_graphs(method: F) -> F:
    """Keeps a method out of compiled graphs, which cannot always call (torch 2.11) or build (2.4) what it makes."""
    return cast("F", torch.compiler.disable(method))


class Seat:
    """The effects of one module, computed whenever the module is."""

    def __init__(
        self,
        path: str,
        module: Linear,
        layers: Mapping[int, tuple[Part, ...]],
        settle: Callable[[tuple[Part, ...]], tuple[Effect, ...]],
        bias: Tensor | None,
        *,
        varies: bool = False,
    ) -> None:
        """Sit down; nothing acts before `tune`.

        Args:
            varies: whether a hook or a schedule changes what acts.
            layers: what may act here, by the number of its layer.
            settle: makes effects of parts, with the module as its model has it.
            bias: what the module adds to its product; needed where an effect does more than add.
        """
        self.path = path
        self.module = module
        self.bias = bias
        self.varies = varies
        self.effects: tuple[Effect, ...] = ()
        self.acted = False
        """Whether the module was called since the seat was taken."""
        self._layers = layers
        self._settle = settle
        self._own: State | None = None
        """What acts here now."""
        self._adds = all(adds(part) for parts in layers.values() for part in parts)
        self._made: dict[State, tuple[Effect, ...]] = {}
        """The last effects that were made; where all add, those of every layer alone, at its own strength."""
        self._moved: dict[State, tuple[Effect, ...]] = {}
        """The same where the module computes."""
        self._place: tuple[torch.device, torch.dtype] | None = None
        self.sit()

    def sit(self) -> None:
        """Take the place of the module's `forward`."""
        self.original = self.module.forward
        self._uncalled = called(self.module)
        self._before = replace_forward(self.module, self.forward)

    def forward(self, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The output of the module, with what the adapters change of it."""
        self.acted = True
        if self._place != (input.device, input.dtype):
            self.move(input.device, input.dtype)
        base = self.original if not args and not kwargs else lambda x: self.original(x, *args, **kwargs)
        return computed(self.effects, base, self.bias, input)

    def tune(self, state: State) -> None:
        """Let those of the layers act that a call has, each as strongly as there."""
        own = tuple(one for one in state if one[0] in self._layers)
        if own != self._own:
            self._own = own
            self.effects = self._effects(own)

    @_outside_graphs
    def move(self, device: torch.device, dtype: torch.dtype) -> None:
        """Bring the factors to where the module computes."""
        self._place = (device, dtype)
        self._moved = {}
        self.bias = None if self.bias is None else self.bias.to(device)
        if self._own is not None:
            self.effects = self._effects(self._own)

    def leave(self) -> bool:
        """Give the module its own `forward` again; False if somebody has wrapped it since, and still calls it."""
        uncalled(self.module, self._uncalled)
        left = restore_forward(self.module, self.forward, self._before)
        if not left:
            self.effects, self._own = (), None
        return left

    def _effects(self, own: State) -> tuple[Effect, ...]:
        if not self._adds:
            return self._at(own)
        # Of what adds, only a number differs: the factors stay where they are.
        return tuple(
            effect if factor == 1 else dataclasses.replace(effect, strength=effect.strength * factor)
            for number, factor in own
            for effect in cast("tuple[Added, ...]", self._at(((number, 1.0),)))
        )

    def _at(self, own: State) -> tuple[Effect, ...]:
        """The effects of parts under exactly these factors, where the module computes."""
        if own not in self._moved:
            if own not in self._made:
                self._remember(self._made, own, self._settled(own))
            made = self._made[own]
            moved = made if self._place is None else tuple(effect.to(*self._place) for effect in made)
            self._remember(self._moved, own, moved)
        return self._moved[own]

    def _remember(self, among: dict[State, tuple[Effect, ...]], own: State, found: tuple[Effect, ...]) -> None:
        if len(among) >= max(KEPT, len(self._layers)):
            del among[next(iter(among))]
        among[own] = found

    def _settled(self, own: State) -> tuple[Effect, ...]:
        parts = tuple(
            dataclasses.replace(part, strength=part.strength * factor)
            for number, factor in own
            for part in self._layers[number]
        )
        kept = self.acted, self.effects, self._own
        # What they are computed from is the module's own weight, which may be read by calling it: nothing acts then.
        self.effects, self._own = (), None
        try:
            return self._settle(parts)
        finally:
            self.acted, self.effects, self._own = kept


def adds(part: Part) -> bool:
    """Whether a part adds the same to the output whatever acts before it."""
    return isinstance(part.adapter, Additive) and part.order is None


class Seats:
    """All seats of a model, and the patcher that took them.

    Clones of a patcher share the model and believe to be injected if the original is: only who took the seats may give
    them back, or the end of a forgotten clone would empty those of the MODEL that samples.
    """

    def __init__(self, owner: ModelPatcher, layers: Layers, seats: Iterable[Seat]) -> None:
        self._owner = weakref.ref(owner)
        self._layers = layers
        self._part: tuple[float, float] = (0.0, 0.0)
        """(sigma, part of the way) of the last call."""
        self.state: State | None = None
        self.seats = tuple(seats)
        self.proven = False
        """Whether a model call has shown that none of them is passed by."""
        self.at_leaving: Callable[[], None] = lambda: None
        """Takes back what watches them."""

    @staticmethod
    def of(model: nn.Module) -> Seats | None:
        """The seats that are taken on a model now, or None."""
        return model.__dict__.get(ATTRIBUTE)

    @staticmethod
    def empty(model: nn.Module) -> bool:
        """Give back all seats that are taken on a model, whoever took them; False if any is still called."""
        if (taken := model.__dict__.pop(ATTRIBUTE, None)) is None:
            return True
        taken.at_leaving()
        left = [seat.leave() for seat in taken.seats]
        return all(left)

    def tune(self, patcher: ModelPatcher, sigmas: Tensor | None = None) -> None:
        """Let act what is to act in a call with these sigmas under the hooks that are applied now.

        Args:
            patcher: whose hooks they are, where who took the seats is gone.
        """
        patcher = self._owner() or patcher
        if sigmas is not None and self._layers.scheduled:
            sigma = float(sigmas.flatten()[0])
            if sigma != self._part[0]:
                self._part = sigma, part_at(patcher, sigma)
        state = self._layers.state(patcher, self._part[1])
        if state != self.state:
            for seat in self.seats:
                seat.tune(state)
            self.state = state

    def sit(self) -> None:
        """Take all seats again."""
        for seat in self.seats:
            seat.sit()

    def belong_to(self, patcher: ModelPatcher) -> bool:
        """Whether this patcher took the seats, or one that is gone."""
        owner = self._owner()
        return owner is None or owner is patcher

    def hold(self, model: nn.Module) -> None:
        """Note on the model that these seats are taken."""
        setattr(model, ATTRIBUTE, self)
