"""`x @ kron(w1, w2).T` and its gradients from small products: ΔW is never built.

With out = out_l·out_k and in = in_m·in_n, x is read as (tokens, in_m, in_n). w1 mixes the middle
dimension and w2, or its two halves, the last; so w1 may act before, between or after them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from .base import Context

__all__ = ["kron_linear"]

Step = tuple[Tensor, bool]
"""A matrix, and whether it mixes the middle dimension instead of the last."""


def kron_linear(x: Tensor, w1: Tensor, w2: Sequence[Tensor], scale: float) -> Tensor:
    """(…, in) -> (…, out), in x's dtype; the factors' gradients are in their own.

    Args:
        w1: (out_l, in_m).
        w2: (out_k, in_n), or its halves (out_k, r) and (r, in_n).
        scale: of ΔW.
    """
    return _KronLinear.apply(x, scale, w1, *reversed(w2))  # pyright: ignore[reportReturnType]


class _KronLinear(torch.autograd.Function):
    """Keeps x, the factors, and at most half as much of what lies between; the rest is computed again."""

    @staticmethod
    def forward(ctx: Context, x: Tensor, scale: float, w1: Tensor, *inner: Tensor) -> Tensor:
        hidden, *steps, (matrix, mixes) = _blocks(x, w1), *_steps(x.dtype, scale, w1, inner)
        kept: dict[int, Tensor] = {}
        for number, step in enumerate(steps):
            hidden = _forward(step, hidden)
            if 2 * (hidden.numel() + sum(map(Tensor.numel, kept.values()))) <= x.numel():
                kept[number] = hidden
        ctx.save_for_backward(x, w1, *inner, *kept.values())
        ctx.scale, ctx.kept = scale, tuple(kept)
        y = x.new_empty(*x.shape[:-1], w1.shape[0] * inner[-1].shape[0])
        blocks = y.view(hidden.shape[0], w1.shape[0], -1)  # all of y, so no product into it is lost
        torch.matmul(*((matrix, hidden) if mixes else (hidden, matrix.t())), out=blocks)
        return y

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Context, grad: Tensor
    ) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        (x, w1), rest = saved[:2], saved[2:]
        inner = rest[: len(rest) - len(ctx.kept)]
        kept = dict(zip(ctx.kept, rest[len(inner) :], strict=True))
        steps = _steps(x.dtype, ctx.scale, w1, inner)
        hidden = [_blocks(x, w1)]
        for number, step in enumerate(steps[:-1]):
            hidden.append(kept[number] if number in kept else _forward(step, hidden[-1]))
        grad = grad.reshape(hidden[0].shape[0], w1.shape[0], -1)
        inner_grads: list[Tensor] = []
        w1_grad = None
        for i in reversed(range(len(steps))):
            matrix, mixes = steps[i]
            if mixes:
                w1_grad = _of_middle(grad, hidden[i]).to(w1.dtype) * ctx.scale
            else:
                inner_grads.insert(0, (grad.flatten(0, 1).t() @ hidden[i].flatten(0, 1)).to(w1.dtype))
            if i > 0 or ctx.needs_input_grad[0]:
                grad = matrix.t() @ grad if mixes else grad @ matrix
        return (grad.reshape(x.shape) if ctx.needs_input_grad[0] else None), None, w1_grad, *inner_grads


def _steps(dtype: torch.dtype, scale: float, w1: Tensor, inner: Sequence[Tensor]) -> list[Step]:
    """The factors of ΔW in the order in which they act, w1 where it costs least."""
    (out_l, in_m), widths = w1.shape, [inner[0].shape[1], *(matrix.shape[0] for matrix in inner)]

    def cost(position: int) -> int:
        inside = (widths[i] * widths[i + 1] * (in_m if i < position else out_l) for i in range(len(inner)))
        return out_l * in_m * widths[position] + sum(inside)

    steps = [(matrix.to(dtype), False) for matrix in inner]
    steps.insert(min(range(len(widths)), key=cost), ((w1 * scale).to(dtype), True))
    return steps


def _blocks(x: Tensor, w1: Tensor) -> Tensor:
    """(…, in) as (tokens, in_m, in_n)."""
    return x.reshape(-1, w1.shape[1], x.shape[-1] // w1.shape[1])


def _forward(step: Step, hidden: Tensor) -> Tensor:
    matrix, mixes = step
    return matrix @ hidden if mixes else linear(hidden, matrix)


def _of_middle(grad: Tensor, hidden: Tensor) -> Tensor:
    """The gradient of a matrix that mixed the middle dimension: (tokens, l, n) and (tokens, m, n) -> (l, m)."""
    (_, large, n), small = grad.shape, hidden.shape[1]
    if large * small <= (large + small) * n:  # smaller than copies of both
        return (grad @ hidden.transpose(1, 2)).sum(0)
    return _middle_first(grad) @ _middle_first(hidden).t()


def _middle_first(hidden: Tensor) -> Tensor:
    """(tokens, m, n) as (m, tokens·n)."""
    return hidden.transpose(0, 1).reshape(hidden.shape[1], -1)
