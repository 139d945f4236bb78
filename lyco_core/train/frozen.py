"""A frozen model under autograd: weights that are not kept for the backward pass, and weights made in inference mode.

Autograd keeps a Linear's weight for the gradient of its input; where the weight was cast or
dequantized for the product, it keeps that copy of it, for every layer. A frozen Linear keeps
nothing and gets its weight again, or lends it to whoever multiplies by the sum of it and a change.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn.functional import linear

from ..devices import norm

__all__ = ["Frozen", "WeightOf", "frozen_linears", "own_weight", "thaw"]

Forward = Callable[[Tensor], Tensor]

WeightOf = Callable[[nn.Module, torch.dtype], AbstractContextManager[Tensor]]
"""Gives a module's weight, (out, in), as it is multiplied with an input of a dtype; what was borrowed for that goes
back at the end of the context."""


@contextmanager
def own_weight(module: nn.Module, dtype: torch.dtype) -> Generator[Tensor]:
    """The `WeightOf` of `nn.Linear`."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    yield weight.detach().to(dtype)


@contextmanager
def frozen_linears(modules: Iterable[nn.Module], weight_of: WeightOf = own_weight) -> Generator[None]:
    """Inside, each module's forward passes on the gradient of its input, and none to its weight or bias.

    Args:
        modules: linear ones, called with one tensor (…, in).
        weight_of: what a host has for its own kinds of Linear.
    """
    before: list[tuple[nn.Module, Forward | None]] = []
    try:
        for module in modules:
            before.append((module, module.__dict__.get("forward")))
            module.forward = Frozen(module, module.forward, weight_of)
        yield
    finally:
        for module, forward in reversed(before):
            if forward is None:
                del module.forward
            else:  # another extension had put one there
                module.forward = forward


class Frozen:
    """What stands in the place of a frozen Linear's `forward`."""

    def __init__(self, module: nn.Module, forward: Forward, weight_of: WeightOf) -> None:
        self.module, self.forward, self.weight_of = module, forward, weight_of
        self.bias: Callable[[torch.device, torch.dtype], Tensor | None] = functools.cache(self._bias)
        self.multiplies: Callable[[torch.device, torch.dtype], bool] = functools.cache(self._multiplies)

    def __call__(self, x: Tensor) -> Tensor:
        """The module's output."""
        if not (torch.is_grad_enabled() and x.requires_grad):
            return self.forward(x)
        y: Tensor = _Frozen.apply(x, self.module, self.forward, self.weight_of)  # pyright: ignore[reportAssignmentType]
        return y

    def weight(self, dtype: torch.dtype) -> AbstractContextManager[Tensor]:
        """Lends the weight, (out, in), as it is multiplied with an input of `dtype`."""
        return self.weight_of(self.module, dtype)

    @torch.no_grad()
    def _bias(self, device: torch.device, dtype: torch.dtype) -> Tensor | None:
        """(out,), what the module gives for zeros, however it keeps its bias; None if it has none."""
        if getattr(self.module, "bias", None) is None:
            return None
        return self.forward(torch.zeros(1, self._width(dtype), device=device, dtype=dtype))[0]

    @torch.no_grad()
    def _multiplies(self, device: torch.device, dtype: torch.dtype) -> bool:
        """Whether the module computes `x @ weight.T + bias` in `dtype`, which is tried once.

        One that rounds its inputs to those of a quantized product does not.
        """
        generator = torch.Generator().manual_seed(0)
        x: Tensor = torch.randn(_TRIED, self._width(dtype), generator=generator).to(device, dtype)
        found: Tensor = self.forward(x)
        bias = self.bias(device, dtype)
        with self.weight(dtype) as weight:
            if weight.dtype != dtype or found.dtype != dtype or weight.device != device:
                return False
            expected = linear(x, weight, bias)
        most = max(torch.finfo(dtype).eps / 2, 1e-5)
        return norm(found - expected) <= most * norm(expected)

    def _width(self, dtype: torch.dtype) -> int:
        with self.weight(dtype) as weight:
            return weight.shape[1]


_TRIED = 32
"""The number of inputs that a module is tried with; some packs compute fewer than 17 in another way."""


class _Context(FunctionCtx):
    module: nn.Module
    weight_of: WeightOf
    dtype: torch.dtype


class _Frozen(torch.autograd.Function):
    @staticmethod
    def forward(ctx: _Context, x: Tensor, module: nn.Module, forward: Forward, weight_of: WeightOf) -> Tensor:
        ctx.module, ctx.weight_of, ctx.dtype = module, weight_of, x.dtype
        return forward(x)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: _Context, grad: Tensor
    ) -> tuple[Tensor, None, None, None]:
        with ctx.weight_of(ctx.module, grad.dtype) as weight:
            return (grad @ weight).to(ctx.dtype), None, None, None


def thaw(model: nn.Module) -> None:
    """Replace parameters and buffers that were made in inference mode by normal ones on the same memory.

    ComfyUI's nodes run in that mode, and autograd keeps no tensor that was made in it. Nothing is
    copied. What has no plain memory of its own (a tensor subclass, on the meta device) is left.
    """
    with torch.inference_mode(False):
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if _can_thaw(parameter):
                    setattr(module, name, nn.Parameter(_thawed(parameter), requires_grad=False))
            for name, buffer in module.named_buffers(recurse=False):
                if _can_thaw(buffer):
                    setattr(module, name, _thawed(buffer))


def _can_thaw(tensor: Tensor) -> bool:
    return not _has_version_counter(tensor) and not tensor.is_meta and type(tensor) in (Tensor, nn.Parameter)


def _has_version_counter(tensor: Tensor) -> bool:
    """Whether a tensor counts its changes in place, as autograd needs it.

    One that was made in inference mode does not. Nor does a parameter that was made there and that `to` moved later,
    outside of that mode: its `is_inference()` is False, so only the counter tells.
    """
    try:
        return tensor._version >= 0
    except RuntimeError:
        return False


def _thawed(tensor: Tensor) -> Tensor:
    normal = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    return normal.set_(tensor.untyped_storage(), tensor.storage_offset(), tensor.size(), tensor.stride())
