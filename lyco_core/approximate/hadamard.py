"""A LoHa near a matrix, by alternating least squares: there is no closed form."""

from __future__ import annotations

import torch
from torch import Tensor

from ..adapters import LoHa
from ..devices import capable, norm
from .svd import truncated

__all__ = ["nearest_loha"]

SWEEPS = 12
"""At most: each solves for all four factors."""

ENOUGH = 1e-3
"""A sweep that lowers the error by less than this share is the last one."""

_CHUNK = 2**24
"""Numbers of the systems that are solved at a time."""


def nearest_loha(delta: Tensor, rank: int) -> LoHa:
    """A LoHa of `rank` no further from `delta`, (out, in·kernel), than the best LoRA of that rank.

    It starts as that LoRA times ones. Each step solves one factor for the others exactly, row by
    row, so the error never grows.
    """
    u, s, v = truncated(delta, rank)
    rank = s.shape[0]
    generator = torch.Generator().manual_seed(0)
    one_a, one_b = u * s.sqrt(), (v * s.sqrt()).t().contiguous()
    other_a = delta.new_zeros(delta.shape[0], rank)
    other_b = torch.randn((rank, delta.shape[1]), generator=generator).to(delta)
    other_a[:, 0], other_b[0] = 1, 1  # the other columns of a are zero until they are solved for
    factors = [one_a, one_b, other_a, other_b]
    error = _residual(delta, factors)
    for _ in range(SWEEPS):
        before = error
        for half in (1, 0):
            factors, error = _improved(delta, factors, half, error)
        if error > (1 - ENOUGH) * before:
            break
    w1_a, w1_b, w2_a, w2_b = (t.contiguous() for t in factors)
    return LoHa(w1_a, w1_b, w2_a, w2_b, alpha=float(rank))


def _improved(delta: Tensor, factors: list[Tensor], half: int, error: float) -> tuple[list[Tensor], float]:
    """Solve for both factors of one half; a step that rounding made worse is not taken."""
    a, b, other_a, other_b = factors[2 * half :] + factors[: 2 * half]
    for rows in (True, False):
        mask = other_a @ other_b
        tried = [_solved(delta, b, mask), b] if rows else [a, _solved(delta.t(), a.t(), mask.t()).t()]
        pair = [*tried, other_a, other_b]
        after = _residual(delta, pair)
        if after < error:
            a, b, error = tried[0], tried[1], after
    ordered = [a, b, other_a, other_b]
    return (ordered[2:] + ordered[:2] if half else ordered), error


def _solved(delta: Tensor, b: Tensor, mask: Tensor) -> Tensor:
    """The a, (out, r), of least ‖delta - (a @ b) * mask‖: for each row a system of r numbers."""
    rank, width = b.shape
    step = max(1, _CHUNK // (rank * width))
    solved = delta.new_empty(delta.shape[0], rank)
    for start in range(0, delta.shape[0], step):
        some = slice(start, start + step)
        scaled = b * mask[some].unsqueeze(1)
        normal = capable(scaled @ scaled.transpose(1, 2)).double()
        ridge = 1e-10 * normal.diagonal(dim1=1, dim2=2).mean(1) + 1e-30
        normal += torch.eye(rank, dtype=normal.dtype, device=normal.device) * ridge.view(-1, 1, 1)
        right = capable(scaled @ delta[some].unsqueeze(2)).double()
        solved[some] = torch.linalg.solve(normal, right).squeeze(2).to(delta.dtype).to(delta.device)
    return solved


def _residual(delta: Tensor, factors: list[Tensor]) -> float:
    """‖delta - the LoHa of these factors‖, in the Frobenius norm."""
    w1_a, w1_b, w2_a, w2_b = factors
    return norm(delta - (w1_a @ w1_b) * (w2_a @ w2_b))
