"""The nearest Kronecker product of a matrix (Van Loan and Pitsianis, 1993): the SVD of its rearrangement."""

from __future__ import annotations

import math

from torch import Tensor

from ..adapters import LoKr
from ..adapters.factors import factorization
from .svd import truncated

__all__ = ["nearest_lokr"]


def nearest_lokr(delta: Tensor, factor: int, rank: int | None) -> LoKr:
    """The LoKr nearest to `delta`, (out, in) or (out, in, *kernel); its w2 of `rank`, or full.

    With a rank, w2 is the best of that rank for this w1: the error of a Kronecker product is the
    error of its factor times the norm of the other.
    """
    (out_l, out_k), (in_m, in_n) = (factorization(size, factor) for size in delta.shape[:2])
    kernel = delta.shape[2:]
    blocks = delta.reshape(out_l, out_k, in_m, in_n, *kernel).transpose(1, 2)
    rearranged = blocks.reshape(out_l * in_m, -1)
    u, s, v = truncated(rearranged, 1)
    root = math.sqrt(float(s[0]))
    w1 = (u[:, 0] * root).reshape(out_l, in_m).contiguous()
    w2 = (v[:, 0] * root).reshape(out_k, in_n, *kernel).contiguous()
    flat = w2.flatten(1)
    if rank is None or rank >= min(flat.shape):
        return LoKr(w1=w1, w2=w2, alpha=1.0)
    a, low, b = truncated(flat, rank)
    half = low.sqrt()
    return LoKr(w1=w1, w2_a=(a * half).contiguous(), w2_b=(b * half).t().contiguous(), alpha=float(rank))
