"""The first singular vectors of a matrix: dense where it is small or nearly all are wanted, else randomised."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

__all__ = ["Svd", "rank_for", "truncated"]

Svd = tuple[Tensor, Tensor, Tensor]
"""U (out, k), S (k,) descending, V (in, k)."""

DENSE = 768
"""Up to this smaller side a whole SVD costs no more than a second."""


def truncated(matrix: Tensor, rank: int) -> Svd:
    """The first `rank` of them. Randomised (arXiv:0909.4061) with power iterations from a fixed seed, if large."""
    most = min(matrix.shape)
    if most <= DENSE or 4 * rank > most:
        u, s, vh = cast(tuple[Tensor, Tensor, Tensor], torch.linalg.svd(matrix, full_matrices=False))
        return u[:, :rank], s[:rank], vh[:rank].t()
    with torch.random.fork_rng(devices=[matrix.device] if matrix.is_cuda else []):
        torch.manual_seed(0)
        u, s, v = torch.svd_lowrank(matrix, q=min(most, rank + max(8, rank // 2)), niter=6)
    return u[:, :rank], s[:rank], v[:, :rank]


def rank_for(s: Tensor, total: float, max_error: float) -> int | None:
    """How many singular values leave a relative error of at most `max_error`; None if not all of `s` do.

    Args:
        total: the squared norm of the matrix.
    """
    left = total - s.double().square().cumsum(0)
    good = torch.nonzero(left <= max_error**2 * total)
    return int(good[0]) + 1 if len(good) else None
