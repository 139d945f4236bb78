"""Where adapters sit beside a module's weight: in the place of its `forward`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from ..errors import AdapterError
from .effects import Effect, computed
from .forward import Forward, replace_forward, restore_forward
from .patches import Convolution, patches_of
from .settle import Part, settled

__all__ = ["Change", "Seat", "Settled", "sits_on"]

ATTRIBUTE = "_lyco_seat"
"""The attribute of a module that has the seat in the place of its `forward`."""


@dataclasses.dataclass(frozen=True)
class Change:
    """What one attachment changes of a module."""

    parts: tuple[Part, ...] = ()
    """What changes its weight, in that order."""
    offset: Tensor | None = None
    """What changes its bias: it is added to the output, (out,), float32."""


@dataclasses.dataclass(frozen=True)
class Settled:
    """All changes of a module together, as its forward computes them."""

    effects: tuple[Effect, ...] = ()
    bias: Tensor | None = None
    """The module's own, where an effect does more than add."""
    offset: Tensor | None = None

    def to(self, device: torch.device, dtype: torch.dtype) -> Settled:
        """A copy on the device, and in the dtype, that the module computes with."""
        return Settled(
            tuple(effect.to(device, dtype) for effect in self.effects),
            None if self.bias is None else self.bias.to(device),
            None if self.offset is None else self.offset.to(device, dtype),
        )


_moved = cast(Callable[[Settled, torch.device, torch.dtype], Settled], torch.compiler.disable(Settled.to))
"""Outside of compiled graphs: what a graph builds itself it cannot always call (torch 2.11), nor build (2.4)."""


def sits_on(module: nn.Module) -> bool:
    """Whether effects act on what the module computes."""
    return isinstance(module, nn.Linear) or (isinstance(module, Convolution) and module.groups == 1)


class Seat:
    """Everything that acts beside one module's weight, by who put it there, in the order in which it came."""

    def __init__(self, path: str, module: nn.Linear | Convolution) -> None:
        self.path = path
        self.module = module
        self.acted = False
        """Whether the module was computed since somebody sat down."""
        self._changes: dict[object, Change] = {}
        self._settled = self._moved = Settled()
        self._place: tuple[torch.device, torch.dtype] | None = None
        self._before: Forward | None = None
        self._original = module.forward

    @classmethod
    def of(cls, path: str, module: nn.Linear | Convolution) -> Seat:
        """The seat that a module has, or a new one that is not yet in the place of its `forward`."""
        return module.__dict__.get(ATTRIBUTE) or cls(path, module)

    def with_change(self, owner: object, change: Change | None) -> Mapping[object, Change]:
        """The changes if that of `owner` becomes `change`; None: without it."""
        if change is not None:
            return {**self._changes, owner: change}
        return {other: held for other, held in self._changes.items() if other is not owner}

    @torch.inference_mode(False)
    @torch.no_grad()
    def settle(self, changes: Mapping[object, Change]) -> Settled:
        """What the module is to compute; nothing is changed yet.

        Raises:
            AdapterError: an adapter has no effect beside this weight, or needs numbers that it does not show.
        """
        parts = [part for change in changes.values() for part in change.parts if part.strength != 0]
        try:
            kernel = not isinstance(self.module, nn.Linear)
            effects = settled(parts, self._rows, self._shape, self.module.weight.device, kernel=kernel)
        except AdapterError as error:
            raise error.within(self.path) from None
        bias = None if all(effect.adds for effect in effects) else self.module.bias
        offsets = [change.offset for change in changes.values() if change.offset is not None]
        return Settled(
            effects,
            None if bias is None else self._numbers("bias", bias),
            torch.stack(offsets).sum(dim=0) if offsets else None,
        )

    def put(self, changes: Mapping[object, Change], settled: Settled) -> None:
        """Compute with `changes`, settled, from now on; without any, the module is as it was."""
        if self._changes and not changes:
            self._leave()
        elif changes and not self._changes:
            self._sit()
        self._changes = dict(changes)
        self._settled = self._moved = settled
        self._place = None

    def forward(self, input: Tensor, *args: object, **kwargs: object) -> Tensor:
        """The module's output with the adapters."""
        self.acted = True
        if self._place != (input.device, input.dtype):
            self._moved = _moved(self._settled, input.device, input.dtype)
            self._place = (input.device, input.dtype)
        now = self._moved
        if isinstance(self.module, nn.Linear):
            output = computed(now.effects, lambda x: self._original(x, *args, **kwargs), now.bias, input)
            return output if now.offset is None else output + now.offset
        return self._convolved(self.module, now, input)

    def _convolved(self, module: Convolution, now: Settled, input: Tensor) -> Tensor:
        channels = -1 - len(module.kernel_size)
        if not now.effects:
            output = self._original(input).movedim(channels, -1)
        else:
            patches = patches_of(module, input)

            def function(x: Tensor) -> Tensor:
                if x is patches:
                    return self._original(input).movedim(channels, -1)
                return linear(x, module.weight.flatten(1).to(x.dtype), module.bias)

            output = computed(now.effects, function, now.bias, patches)
        output = output if now.offset is None else output + now.offset
        return output.movedim(-1, channels)

    def _sit(self) -> None:
        self._original = self.module.forward
        self._before = replace_forward(self.module, self.forward)
        self.acted = False
        self.module.__dict__[ATTRIBUTE] = self

    def _leave(self) -> None:
        """Give the module its own `forward` again; who has wrapped ours since still calls it, and it adds nothing."""
        self.module.__dict__.pop(ATTRIBUTE, None)
        restore_forward(self.module, self.forward, self._before)

    @property
    def _shape(self) -> tuple[int, int]:
        """(out, in·kernel) of the weight, however it is stored."""
        if isinstance(self.module, nn.Linear):
            return self.module.out_features, self.module.in_features
        out, *rest = self.module.weight.shape
        return out, torch.Size(rest).numel()

    def _rows(self, start: int, stop: int) -> Tensor:
        weight = self._numbers("weight", self.module.weight)
        if weight.shape[0] != self._shape[0] or weight.numel() != self._shape[0] * self._shape[1]:
            raise AdapterError(
                f"its weight of {list(self._shape)} is stored as {list(weight.shape)} numbers of {weight.dtype}; an "
                "adapter that depends on the weight needs it as it is: attach it to the model in bf16"
            )
        return weight[start:stop].to(torch.float32, copy=True).flatten(1)

    def _numbers(self, name: str, tensor: Tensor) -> Tensor:
        """A parameter of the module, detached. Raises `AdapterError` if it has no numbers that can be read here."""
        if tensor.is_meta or not tensor.is_floating_point():
            where = "on the meta device (offloaded)" if tensor.is_meta else f"{tensor.dtype} (quantized)"
            raise AdapterError(
                f"its {name} is {where}, and an adapter that depends on the weight needs its numbers; attach it before "
                "the model is offloaded, or to the model in bf16"
            )
        return tensor.detach()
