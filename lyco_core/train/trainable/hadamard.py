"""`x @ ((a1 @ b1) * (a2 @ b2)).T` and its gradients, without ever holding ΔW.

Two ways with one result; the cheaper one is taken. *By ranks*: the product is a LoRA of rank r²
whose row (i, j) of down is b1[i] * b2[j], likewise its columns of up; ΔW never arises. *By bands*:
some rows of ΔW are made, used and forgotten. For 5120 x 5120 ranks up to some 50 go the first way.

Both keep x and the factors only, and compute what else they need again in the backward pass.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .base import Context

__all__ = ["cheaper_by_ranks", "hadamard_linear"]

_ELEMENTS = 2**22
"""How many numbers one temporary may hold: 16 MB of float32, which products of 256 tokens take fastest."""

Grads = tuple[Tensor | None, Tensor, Tensor, Tensor, Tensor, None]


def hadamard_linear(x: Tensor, a1: Tensor, b1: Tensor, a2: Tensor, b2: Tensor, rows: Tensor) -> Tensor:
    """(…, in) -> (…, out), in x's dtype; the factors' gradients are in their own.

    Args:
        a1, a2: (out, r).
        b1, b2: (r, in).
        rows: (out,) or (1,), what each row of ΔW is multiplied with.
    """
    tokens = x.shape[:-1].numel()
    function = _ByRanks if cheaper_by_ranks(tokens, a1.shape[1], a1.shape[0], b1.shape[1]) else _ByBands
    return function.apply(x, a1, b1, a2, b2, rows.unsqueeze(1))  # pyright: ignore[reportReturnType]


def cheaper_by_ranks(tokens: int, rank: int, out: int, into: int) -> bool:
    """Which way takes fewer multiplications, forward and backward.

    By ranks x is multiplied 7 times, with (r², in) or (r², out). By bands it is 3 times, with ΔW or
    to its gradient; 8 products of rank r make ΔW twice and take the gradient apart.
    """
    return 7 * tokens * rank**2 * (out + into) < 2 * (3 * tokens + 8 * rank) * out * into


class _ByRanks(torch.autograd.Function):
    """Works on a1 and a2 transposed, so that both sides are alike: (r, out) and (r, in)."""

    @staticmethod
    def forward(ctx: Context, x: Tensor, a1: Tensor, b1: Tensor, a2: Tensor, b2: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(x, a1, b1, a2, b2, rows)
        up1, up2 = ((a1 * rows).t().to(x.dtype, copy=True), a2.t().to(x.dtype).contiguous())
        down1, down2 = b1.to(x.dtype), b2.to(x.dtype)
        flat, y = x.reshape(-1, x.shape[-1]), x.new_zeros(*x.shape[:-1], a1.shape[0])
        for some in _chunks(a1.shape[1], a1.shape[1] * max(a1.shape[0], b1.shape[1])):
            y.view(-1, a1.shape[0]).addmm_(flat @ _pairs(down1[some], down2).t(), _pairs(up1[some], up2))
        return y

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Context, grad: Tensor
    ) -> Grads:
        x, a1, b1, a2, b2, rows = ctx.saved_tensors
        flat, grad = x.reshape(-1, x.shape[-1]), grad.reshape(-1, a1.shape[0])
        wide = [(a1 * rows).t().contiguous(), b1, a2.t().contiguous(), b2]
        up1, down1, up2, down2 = (factor.to(x.dtype) for factor in wide)
        of_x = torch.zeros_like(flat) if ctx.needs_input_grad[0] else None
        of_up1, of_down1, of_up2, of_down2 = (torch.zeros_like(factor) for factor in wide)
        for some in _chunks(a1.shape[1], a1.shape[1] * max(a1.shape[0], b1.shape[1])):
            up, down = _pairs(up1[some], up2), _pairs(down1[some], down2)
            of_hidden = grad @ up.t()
            _unpair((flat @ down.t()).t() @ grad, wide[0][some], wide[2], of_up1[some], of_up2)
            _unpair(of_hidden.t() @ flat, b1[some], b2, of_down1[some], of_down2)
            if of_x is not None:
                of_x.addmm_(of_hidden, down)
        return _like(of_x, x), of_up1.t() * rows, of_down1, of_up2.t(), of_down2, None


class _ByBands(torch.autograd.Function):
    """Makes and forgets a band of ΔW after the other, forward and again backward."""

    @staticmethod
    def forward(ctx: Context, x: Tensor, a1: Tensor, b1: Tensor, a2: Tensor, b2: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(x, a1, b1, a2, b2, rows)
        up1, down1, up2, down2 = (factor.to(x.dtype) for factor in (a1 * rows, b1, a2, b2))
        flat, y = x.reshape(-1, x.shape[-1]), x.new_empty(*x.shape[:-1], a1.shape[0])
        for band in _chunks(a1.shape[0], b1.shape[1]):
            delta = (up1[band] @ down1).mul_(up2[band] @ down2)
            torch.mm(flat, delta.t(), out=y.view(-1, a1.shape[0])[:, band])
        return y

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Context, grad: Tensor
    ) -> Grads:
        x, a1, b1, a2, b2, rows = ctx.saved_tensors
        flat, grad = x.reshape(-1, x.shape[-1]), grad.reshape(-1, a1.shape[0])
        wide = [a1 * rows, b1, a2, b2]
        up1, down1, up2, down2 = (factor.to(x.dtype) for factor in wide)
        of_x = torch.zeros_like(flat) if ctx.needs_input_grad[0] else None
        of_up1, of_down1, of_up2, of_down2 = (torch.zeros_like(factor) for factor in wide)
        for band in _chunks(a1.shape[0], b1.shape[1]):
            of_y = grad[:, band]
            first, second = up1[band] @ down1, up2[band] @ down2
            if of_x is not None:
                of_x.addmm_(of_y, first * second)
            of_delta = of_y.t() @ flat
            for made, one, down, of_one, of_down in (
                (second, up1, down1, of_up1, of_down1),
                (first, up2, down2, of_up2, of_down2),
            ):
                made.mul_(of_delta)
                of_one[band] = made @ down.t()
                of_down += one[band].t() @ made
        return _like(of_x, x), of_up1 * rows, of_down1, of_up2, of_down2, None


def _like(flat: Tensor | None, x: Tensor) -> Tensor | None:
    return None if flat is None else flat.reshape(x.shape)


def _chunks(count: int, width: int) -> Iterator[slice]:
    """Slices of 0:count such that one times `width` has at most `_ELEMENTS` numbers; at least one each."""
    step = max(1, _ELEMENTS // width)
    return (slice(start, min(start + step, count)) for start in range(0, count, step))


def _pairs(one: Tensor, other: Tensor) -> Tensor:
    """(c, n) and (r, n) as (c·r, n): every row of one times every row of the other."""
    return (one.unsqueeze(1) * other).flatten(0, 1)


def _unpair(grad: Tensor, one: Tensor, other: Tensor, of_one: Tensor, of_other: Tensor) -> None:
    """From the gradient of `_pairs`, (c·r, n), that of `one`, and what it adds to that of `other`."""
    grad = grad.to(one.dtype).view(one.shape[0], -1, one.shape[1])
    of_one.copy_((grad * other).sum(1))
    of_other += grad.mul_(one.unsqueeze(1)).sum(0)
