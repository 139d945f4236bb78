"""The norm of a LoHa's change, ‖X ∘ Y‖² with X = w1_a @ w1_b and Y = w2_a @ w2_b, without building it."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from ..adapters import LoHa
from ..scratch import scratch

__all__ = ["square"]

BAND = 2**19
"""Numbers of an intermediate result at a time: it stays in a core's cache."""

NUMBER, PAIR = 24, 256
"""To go through a number of a product once more, or to make a pair, takes as long as so many multiplications in one."""

CANCELLED = 1e-2
"""What may be left of a sum in float32, as a share of its terms, for all of it to be exact to 1e-5."""


def square(loha: LoHa) -> float:
    """‖ΔW‖² by pairs of ranks or by bands of rows, whichever takes fewer operations; exact to 1e-5 or better."""
    w1_a, w1_b, w2_a, w2_b = loha.factors(torch.float32, loha.w1_a.device)
    (rows, rank), columns = w1_a.shape, w1_b.shape[1]
    pairs = rank * (rank + 1) // 2
    found = None
    if pairs * (pairs + PAIR) * (rows + columns) < 2 * rows * columns * (rank + NUMBER):
        found = _by_pairs(_gram(w1_a.t(), w2_a.t()) * _gram(w1_b, w2_b), rank)
    return loha.scale**2 * (_by_bands(w1_a, w1_b, w2_a, w2_b) if found is None else found)


def _by_pairs(products: Tensor, rank: int) -> float | None:
    """The sum over all numbers of ΔW: X² is the product of all pairs of columns of w1_a and of rows of w1_b, of which
    those of two different ranks are there twice, and Y² alike. None where too little is left of its terms.
    """
    one, other = torch.triu_indices(rank, rank)
    twice = torch.where(one == other, 1.0, 2.0).double()
    terms = products * twice * twice.unsqueeze(1)
    total = float(terms.sum())
    return total if total > CANCELLED * float(terms.abs().sum()) else None


def _gram(first: Tensor, second: Tensor) -> Tensor:
    """Products of every pair of rows of one with every pair of rows of the other; (r, n) and (r, n), in float64."""
    one, other = torch.triu_indices(first.shape[0], first.shape[0])
    total = torch.zeros(len(one), len(one), dtype=torch.float64)
    step = max(1, BAND // len(one))
    for start in range(0, first.shape[1], step):
        some = [half[:, start : start + step].contiguous() for half in (first, second)]
        left, right = (half[one].mul_(half[other]) for half in some)
        total += left @ right.t()
    return total


def _by_bands(w1_a: Tensor, w1_b: Tensor, w2_a: Tensor, w2_b: Tensor) -> float:
    columns = w1_b.shape[1]
    step = max(1, BAND // columns)
    first, second = scratch("halves", (2, step, columns)).unbind()
    total = 0.0
    for start in range(0, w1_a.shape[0], step):
        above, below = w1_a[start : start + step], w2_a[start : start + step]
        x = torch.mm(above, w1_b, out=first[: len(above)])
        y = torch.mm(below, w2_b, out=second[: len(above)])
        lengths = cast("Tensor", torch.linalg.vector_norm(x.mul_(y), dim=1))
        total += float(lengths.double().square().sum())
    return total
