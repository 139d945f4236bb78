"""`x @ ((a1 @ b1) * (a2 @ b2)).T` and its gradients, without ever holding ΔW.

Two ways with one result; the cheaper one is taken. *By ranks*: the product is a LoRA of rank r²
whose row (i, j) of down is b1[i] * b2[j], likewise its columns of up; ΔW never arises. *By bands*:
some rows of ΔW are made, used and forgotten. For 5120 x 5120 ranks up to some 50 go the first way.

Both keep x and the factors only, and compute what else they need again in the backward pass. Bands may be those of a
frozen weight and ΔW (`summed.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ...adapters.loha import row_pairs
from ...devices import add_product_, product_into
from .bands import Band, product
from .base import Context
from .sums import Base

__all__ = ["Grads", "cheaper_by_ranks", "forward_by_bands", "gradients", "hadamard_linear"]

_ELEMENTS = 2**21
"""How many numbers one temporary may hold on a CPU: 8 MB of float32, of which a thread keeps three. Elsewhere eight
times as many, since each costs launches of kernels, and ranks a pass over the output."""

Grads = tuple[Tensor | None, Tensor, Tensor, Tensor, Tensor, None, None]


def hadamard_linear(x: Tensor, a1: Tensor, b1: Tensor, a2: Tensor, b2: Tensor, rows: Tensor) -> Tensor:
    """(…, in) -> (…, out), in x's dtype; the factors' gradients are in their own.

    Args:
        a1, a2: (out, r).
        b1, b2: (r, in).
        rows: (out,) or (1,), what each row of ΔW is multiplied with.
    """
    tokens = x.shape[:-1].numel()
    by_ranks = cheaper_by_ranks(tokens, a1.shape[1], a1.shape[0], b1.shape[1])
    return _Hadamard.apply(x, a1, b1, a2, b2, rows.unsqueeze(1), by_ranks)  # pyright: ignore[reportReturnType]


def cheaper_by_ranks(tokens: int, rank: int, out: int, into: int) -> bool:
    """Whether the way by ranks takes fewer multiplications than that by bands, forward and backward.

    By ranks x is multiplied 7 times, with (r², in) or (r², out). By bands it is 3 times, with ΔW or
    to its gradient; 8 products of rank r make ΔW twice and take the gradient apart.
    """
    return 7 * tokens * rank**2 * (out + into) < 2 * (3 * tokens + 8 * rank) * out * into


class _Hadamard(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Context, x: Tensor, a1: Tensor, b1: Tensor, a2: Tensor, b2: Tensor, rows: Tensor, by_ranks: bool
    ) -> Tensor:
        ctx.save_for_backward(x, a1, b1, a2, b2, rows)
        ctx.by_ranks = by_ranks
        y = x.new_empty(*x.shape[:-1], a1.shape[0])
        factors = [factor.to(x.dtype) for factor in _sides([a1 * rows, b1, a2, b2], by_ranks)]
        forward = _forward_by_ranks if by_ranks else forward_by_bands
        forward(x.reshape(-1, x.shape[-1]), factors, y.view(-1, a1.shape[0]))
        return y

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Context, grad: Tensor
    ) -> Grads:
        x, a1, b1, a2, b2, rows = ctx.saved_tensors
        flat, grad = x.reshape(-1, x.shape[-1]), grad.reshape(-1, a1.shape[0])
        of_x = torch.zeros_like(flat) if ctx.needs_input_grad[0] else None
        of_a1, of_b1, of_a2, of_b2 = gradients(flat, grad, [a1 * rows, b1, a2, b2], of_x, ctx.by_ranks)
        return None if of_x is None else of_x.view(x.shape), of_a1 * rows, of_b1, of_a2, of_b2, None, None


def gradients(
    x: Tensor,
    grad: Tensor,
    factors: Sequence[Tensor],
    of_x: Tensor | None,
    by_ranks: bool,
    base: Base | None = None,
) -> Sequence[Tensor]:
    """The factors' gradients; that of x is added to `of_x`, with `base` that of its sum with ΔW."""
    of_factors = [torch.zeros_like(factor) for factor in _sides(factors, by_ranks)]
    if not by_ranks:
        _backward_by_bands(x, grad, factors, of_x, of_factors, base)
    elif base is None or of_x is None:
        _backward_by_ranks(x, grad, _sides(factors, True), of_x, of_factors)
    else:
        _input_by_bands(grad, factors, of_x, base)
        _backward_by_ranks(x, grad, _sides(factors, True), None, of_factors)
    return _sides(of_factors, by_ranks)


def _sides(factors: Sequence[Tensor], by_ranks: bool) -> Sequence[Tensor]:
    """The four factors; for the way by ranks with a1 and a2 transposed, so that all are (r, …). Twice undoes it."""
    if not by_ranks:
        return factors
    a1, b1, a2, b2 = factors
    return a1.t().contiguous(), b1, a2.t().contiguous(), b2


def _forward_by_ranks(x: Tensor, factors: Sequence[Tensor], y: Tensor) -> None:
    up1, down1, up2, down2 = factors
    y.zero_()
    for some in _chunks_of_ranks(up1, down1):
        add_product_(y, x @ row_pairs(down1[some], down2).t(), row_pairs(up1[some], up2))


def _backward_by_ranks(
    x: Tensor, grad: Tensor, factors: Sequence[Tensor], of_x: Tensor | None, of_factors: Sequence[Tensor]
) -> None:
    up1, down1, up2, down2 = (factor.to(x.dtype) for factor in factors)
    of_up1, of_down1, of_up2, of_down2 = of_factors
    for some in _chunks_of_ranks(up1, down1):
        up, down = row_pairs(up1[some], up2), row_pairs(down1[some], down2)
        of_hidden = grad @ up.t()
        _unpair((x @ down.t()).t() @ grad, factors[0][some], factors[2], of_up1[some], of_up2)
        _unpair(of_hidden.t() @ x, factors[1][some], factors[3], of_down1[some], of_down2)
        if of_x is not None:
            add_product_(of_x, of_hidden, down)


def forward_by_bands(x: Tensor, factors: Sequence[Tensor], y: Tensor, base: Base | None = None) -> None:
    """`y = x @ ΔW.T`, or with `base` its weight and ΔW."""
    for band in _chunks(factors[0].shape[0], factors[1].shape[1], x.device):
        product_into(y[:, band], x, Band(factors, band, base).total(last=True).t())


def _input_by_bands(grad: Tensor, factors: Sequence[Tensor], of_x: Tensor, base: Base) -> None:
    """`of_x += grad @ (weight + ΔW)`."""
    factors = [factor.to(grad.dtype) for factor in factors]
    for band in _chunks(factors[0].shape[0], factors[1].shape[1], grad.device):
        add_product_(of_x, grad[:, band], Band(factors, band, base).total(last=True))


def _backward_by_bands(
    x: Tensor,
    grad: Tensor,
    factors: Sequence[Tensor],
    of_x: Tensor | None,
    of_factors: Sequence[Tensor],
    base: Base | None = None,
) -> None:
    """Add to the gradients; `base` as in the forward pass."""
    up1, down1, up2, down2 = factors = [factor.to(x.dtype) for factor in factors]
    of_up1, of_down1, of_up2, of_down2 = of_factors
    for band in _chunks(up1.shape[0], down1.shape[1], x.device):
        of_y, rows = grad[:, band], Band(factors, band, base)
        if of_x is not None:
            add_product_(of_x, of_y, rows.total(last=False))
        of_first, of_second = rows.times(product("delta", of_y.t(), x))
        for made, one, down, of_one, of_down in (
            (of_first, up1, down1, of_up1, of_down1),
            (of_second, up2, down2, of_up2, of_down2),
        ):
            of_one[band] = made @ down.t()
            of_down += one[band].t() @ made


def _chunks_of_ranks(up: Tensor, down: Tensor) -> Iterator[slice]:
    return _chunks(up.shape[0], up.shape[0] * max(up.shape[1], down.shape[1]), up.device)


def _chunks(count: int, width: int, device: torch.device) -> Iterator[slice]:
    """Slices of 0:count such that one times `width` is no more than one temporary; at least one each."""
    most = _ELEMENTS if device.type == "cpu" else 8 * _ELEMENTS
    step = max(1, most // width)
    step = step // 64 * 64 or step  # products take whole tiles fastest
    return (slice(start, min(start + step, count)) for start in range(0, count, step))


def _unpair(grad: Tensor, one: Tensor, other: Tensor, of_one: Tensor, of_other: Tensor) -> None:
    """From the gradient of `row_pairs`, (c·r, n), that of `one`, and what it adds to that of `other`."""
    grad = grad.to(one.dtype).view(one.shape[0], -1, one.shape[1])
    of_one.copy_((grad * other).sum(1))
    of_other += grad.mul_(one.unsqueeze(1)).sum(0)
