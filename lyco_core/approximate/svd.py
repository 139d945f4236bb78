"""The first singular vectors of a matrix: dense where it is small or nearly all are wanted, else randomised."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from ..devices import capable
from ..errors import AdapterError

__all__ = ["Svd", "full_svd", "least_rank", "require_finite", "svd_of_product", "truncated"]

Svd = tuple[Tensor, Tensor, Tensor]
"""U (out, k), S (k,) descending, V (in, k)."""

DENSE = 768
"""Up to this smaller side a whole SVD costs no more than a second."""


def full_svd(matrix: Tensor) -> Svd:
    """The whole SVD of a matrix. Raises `AdapterError` if a number is NaN or infinite."""
    require_finite(matrix)
    u, s, vh = cast(tuple[Tensor, Tensor, Tensor], torch.linalg.svd(capable(matrix), full_matrices=False))
    return u.to(matrix), s.to(matrix), vh.t().to(matrix)


def truncated(matrix: Tensor, rank: int) -> Svd:
    """The first `rank` singular values, with their vectors.

    Of a large matrix by a randomised SVD (arXiv:0909.4061) with power iterations, from a fixed seed.

    Raises:
        AdapterError: a number is NaN or infinite.
    """
    most = min(matrix.shape)
    if most <= DENSE or 4 * rank > most:
        u, s, v = full_svd(matrix)
    else:
        require_finite(matrix)
        able = capable(matrix)
        with torch.random.fork_rng(devices=[able.device] if able.is_cuda else []):
            torch.manual_seed(0)
            found = torch.svd_lowrank(able, q=min(most, rank + max(8, rank // 2)), niter=6)
        u, s, v = (part.to(matrix) for part in found)
    return u[:, :rank], s[:rank], v[:, :rank]


def svd_of_product(a: Tensor, b: Tensor) -> Svd:
    """The whole SVD of a @ b, from QR of both: the only dense matrix is of the inner dimension's size."""
    qa, ra = _qr(a)
    qb, rb = _qr(b.t())
    u, s, v = full_svd(ra @ rb.t())
    return qa @ u, s, qb @ v


def _qr(matrix: Tensor) -> tuple[Tensor, Tensor]:
    q, r = cast(tuple[Tensor, Tensor], torch.linalg.qr(capable(matrix)))
    return q.to(matrix), r.to(matrix)


def least_rank(s: Tensor, max_error: float, rest: float = 0.0) -> int | None:
    """The least rank, 1 at least, whose relative error is at most `max_error`; None if even that of all of `s` is more.

    Args:
        s: singular values, descending.
        rest: the squared norm of what `s` lacks of the matrix, measured, not inferred: a small
            tail is lost in the rounding of the norm.
    """
    squares = capable(s).double().square()
    tails = squares.flip(0).cumsum(0).flip(0)  # small numbers first
    left = torch.cat([tails[1:], tails.new_zeros(1)]) + rest
    good = torch.nonzero(left <= max_error**2 * (tails[0] + rest))
    return int(good[0]) + 1 if len(good) else None


def require_finite(matrix: Tensor) -> None:
    """Raise `AdapterError` if a number is NaN or infinite."""
    if not bool(torch.isfinite(matrix).all()):
        raise AdapterError("the product of its factors is beyond float32's range; the file is damaged")
