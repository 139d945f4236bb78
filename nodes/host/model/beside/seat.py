"""Where an adapter sits while its model is loaded: in the place of a module's `forward`."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from .....lyco_core.beside import Effect, computed, replace_forward, restore_forward
from ...protocols import Linear, ModelPatcher
from .fused import called, uncalled

F = TypeVar("F", bound=Callable[..., Any])

ATTRIBUTE = "_lyco_seats"
"""Under which a ComfyUI model holds its `Seats`."""


def _outside_graphs(method: F) -> F:
    """Keeps a method out of compiled graphs, which cannot always call (torch 2.11) or build (2.4) what it makes."""
    return cast("F", torch.compiler.disable(method))


class Seat:
    """The effects of one module, computed whenever the module is."""

    def __init__(self, path: str, module: Linear, effects: tuple[Effect, ...], bias: Tensor | None) -> None:
        self.path = path
        self.module = module
        self.effects = self._settled = effects
        self.bias = bias
        self.acted = False
        """Whether the module was called since the seat was taken."""
        self._place: tuple[torch.device, torch.dtype] | None = None
        self.original = module.forward
        self._uncalled = called(module)
        self._before = replace_forward(module, self.forward)

    def forward(self, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The output of the module, with what the adapters change of it."""
        self.acted = True
        if self._place != (input.device, input.dtype):
            self.move(input.device, input.dtype)
        base = self.original if not args and not kwargs else lambda x: self.original(x, *args, **kwargs)
        return computed(self.effects, base, self.bias, input)

    @_outside_graphs
    def move(self, device: torch.device, dtype: torch.dtype) -> None:
        """Bring the factors to where the module computes."""
        self.effects = tuple(effect.to(device, dtype) for effect in self._settled)
        self.bias = None if self.bias is None else self.bias.to(device)
        self._place = (device, dtype)

    def leave(self) -> None:
        """Give the module its own `forward` again."""
        uncalled(self.module, self._uncalled)
        if not restore_forward(self.module, self.forward, self._before):
            self.effects = self._settled = ()


class Seats:
    """All seats of a model, and the patcher that took them.

    Clones of a patcher share the model and believe to be injected if the original is: only who took the seats may give
    them back, or the end of a forgotten clone would empty those of the MODEL that samples.
    """

    def __init__(self, owner: ModelPatcher, seats: Iterable[Seat]) -> None:
        self._owner = weakref.ref(owner)
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
    def empty(model: nn.Module) -> None:
        """Give back all seats that are taken on a model, whoever took them."""
        if (taken := model.__dict__.pop(ATTRIBUTE, None)) is not None:
            taken.at_leaving()
            for seat in taken.seats:
                seat.leave()

    def belong_to(self, patcher: ModelPatcher) -> bool:
        """Whether this patcher took the seats, or one that is gone."""
        owner = self._owner()
        return owner is None or owner is patcher

    def hold(self, model: nn.Module) -> None:
        """Note on the model that these seats are taken."""
        setattr(model, ATTRIBUTE, self)
