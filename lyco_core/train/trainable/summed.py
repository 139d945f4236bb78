"""A frozen Linear and its LoHa as one product: `x @ (W + ΔW).T + bias`, of bands of the sum that are never kept.

Counted in products of the size of W, a step is 3 or little more: forward, gradient of x, gradient of ΔW. Beside each
other it is 5, or 2 and what the way by ranks takes. The factors' gradients can be taken by ranks here too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from ..frozen import Frozen
from .hadamard import forward_by_bands, gradients
from .sums import Base

__all__ = ["Way", "cheapest", "summed_linear"]


@dataclasses.dataclass(frozen=True)
class Way:
    """How a LoHa and its frozen Linear are computed."""

    summed: bool
    by_ranks: bool
    """Whether the factors' gradients, and what is not summed, are computed by ranks."""


_TRAFFIC = {("cpu", False): 8, ("cpu", True): 48, ("cuda", False): 40, ("cuda", True): 240}
"""Device type, whether in half precision -> how many multiplications take as long as a number that is read or written.

Measured on a Xeon with AMX; of an H100, by its product and copy rates. Other devices are taken for the latter.
"""


def cheapest(
    tokens: int, rank: int, shape: tuple[int, int], device: torch.device, dtype: torch.dtype, fused: bool = False
) -> Way:
    """The way that takes the least time, forward and backward.

    Counted are multiplications, and numbers of the size of ΔW, or of r² columns and rows, that are read or written.
    `fused`: one kernel makes a band from the factors (`bands.py`). What that moves is counted by hand, not measured: W
    and the sum, which is read again, in each direction; the gradient of ΔW written, and read, times each half, and
    those two written, and read twice each.
    """
    half = dtype.itemsize <= 2
    traffic = _TRAFFIC.get((device.type, half)) or _TRAFFIC["cuda", half]
    (out, into), square = shape, rank**2
    n, pairs = out * into, square * (out + into)
    one, low = tokens * n, rank * n  # a product of W's size, and one of rank r
    plus = 9 if half else 3  # what the sum and its rounding read and write
    beside, summed, by_ranks = (13, 15, 6) if fused else (19, 19 + 2 * plus, 10 + 2 * plus)
    costs = {
        Way(False, False): 3 * one + 8 * low + traffic * beside * n,
        Way(False, True): 3.5 * tokens * pairs + traffic * (14 * pairs + 6 * tokens * square),
        Way(True, False): one + 8 * low + traffic * summed * n,
        Way(True, True): 2 * tokens * pairs + 4 * low + traffic * (by_ranks * n + 11 * pairs),
    }
    return min(costs, key=costs.__getitem__)


def summed_linear(
    x: Tensor, a1: Tensor, b1: Tensor, a2: Tensor, b2: Tensor, rows: Tensor, frozen: Frozen, by_ranks: bool
) -> Tensor:
    """The frozen Linear's output of x (…, in) with the LoHa's change; see `hadamard_linear`."""
    factors = [factor.detach() for factor in (a1 * rows.unsqueeze(1), b1, a2, b2)]
    call = _Call(frozen, factors, rows.unsqueeze(1), by_ranks, _seed(x.dtype))
    return _Product.apply(_Inputs.apply(x, a1, b1, a2, b2, call), call)  # pyright: ignore[reportReturnType]


def _seed(dtype: torch.dtype) -> int:
    """Of the rounding, drawn from the CPU's generator, which a checkpoint brings back; float32 is not rounded."""
    return int(torch.randint(2**62, ())) if dtype.itemsize <= 2 else 0


@dataclasses.dataclass
class _Call:
    """One computation, of which the two functions below are the halves."""

    frozen: Frozen
    factors: Sequence[Tensor]
    rows: Tensor
    """(out, 1) or (1, 1), what each row of ΔW is multiplied with; the first factor has it already."""
    by_ranks: bool
    seed: int
    grad: Tensor | None = None
    """Of the output, once it is known."""


class _Context(FunctionCtx):
    saved_tensors: tuple[Tensor, ...]
    needs_input_grad: tuple[bool, ...]
    call: _Call
    shape: torch.Size


class _Inputs(torch.autograd.Function):
    """Keeps x and the factors before the product is made, and computes all gradients after it.

    Where a checkpointed block is run again, it stops once that has what it needs: so before the product of its last
    module.
    """

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: _Context, x: Tensor, a1: Tensor, b1: Tensor, a2: Tensor, b2: Tensor, call: _Call
    ) -> Tensor:
        ctx.save_for_backward(x, a1, b1, a2, b2)
        ctx.call = call
        return x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: _Context, _: Tensor
    ) -> tuple[Tensor | None, Tensor, Tensor, Tensor, Tensor, None]:
        (x, a1, b1, a2, b2), call = ctx.saved_tensors, ctx.call
        grad, call.grad = call.grad, None
        assert grad is not None
        flat = x.reshape(-1, x.shape[-1])
        of_x = torch.zeros_like(flat) if ctx.needs_input_grad[0] else None
        with call.frozen.weight(x.dtype) as weight:
            base = Base.of(weight, call.seed)
            factors = [a1 * call.rows, b1, a2, b2]
            of_a1, *others = gradients(flat, grad.reshape(-1, a1.shape[0]), factors, of_x, call.by_ranks, base)
        of_b1, of_a2, of_b2 = others
        return None if of_x is None else of_x.view(x.shape), of_a1 * call.rows, of_b1, of_a2, of_b2, None


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: _Context, x: Tensor, call: _Call) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.call, ctx.shape = call, x.shape
        out = call.factors[0].shape[0]
        y = x.new_empty(*x.shape[:-1], out)
        with call.frozen.weight(x.dtype) as weight:
            base = Base.of(weight, call.seed)
            factors = [factor.to(x.dtype) for factor in call.factors]
            forward_by_bands(x.reshape(-1, x.shape[-1]), factors, y.view(-1, out), base)
        bias = call.frozen.bias(x.device, x.dtype)
        return y if bias is None else y.add_(bias)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: _Context, grad: Tensor
    ) -> tuple[Tensor, None]:
        ctx.call.grad = grad
        return grad.new_zeros(()).expand(ctx.shape), None  # stands for nothing: `_Inputs` has the gradient of x
