"""The best LoRA of a given rank or error, by Eckart and Young: only where a person asks for it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..adapters import Adapter, Additive, ByType, LoKr, LoRA, OnBase
from ..devices import norm
from .options import Limits
from .svd import Svd, full_svd, least_rank, svd_of_product, truncated

__all__ = ["best_lora"]


def best_lora(adapter: Adapter, limits: Limits) -> LoRA:
    """The LoRA of at most a rank, or of the least rank whose relative error is at most one.

    A LoKr's singular values are the products of its factors', and a LoRA's are those of a matrix as
    small as its rank: for both the result is the best there is. Others go through a randomised SVD
    (arXiv:0909.4061) of ΔW with power iterations.

    Raises:
        AdapterError: ΔW is beyond float32's range, or there is none without the weight.
        RankTooSmall: `limits` has both, and the error needs a larger rank.
    """
    u, s, v = svd_of(adapter, limits)
    root = s.sqrt()
    down = (v * root).t().contiguous().reshape(s.shape[0], *adapter.shape[1:])
    return LoRA(u * root, down, alpha=float(s.shape[0]))


@ByType
def svd_of(adapter: Adapter, limits: Limits) -> Svd:
    """The first singular values and vectors of ΔW, (out, in·kernel): as many as the limits want."""
    ...


@svd_of.register(Additive)
def _(adapter: Additive, limits: Limits) -> Svd:
    return _svd_of_matrix(adapter.delta_weight().flatten(1), limits)


@svd_of.register(LoRA)
def _(adapter: LoRA, limits: Limits) -> Svd:
    up, down = adapter.factors(torch.float32, adapter.up.device)
    return _cut(svd_of_product(up * adapter.scale, down), limits)


@svd_of.register(LoKr)
def _(adapter: LoKr, limits: Limits) -> Svd:
    """kron(U1 S1 V1', U2 S2 V2') = kron(U1, U2) kron(S1, S2) kron(V1, V2)'."""
    device = next(iter(adapter.tensors.values())).device
    u1, s1, v1 = full_svd(adapter.factor1(torch.float32, device))
    a, b = adapter.factor2(torch.float32, device)
    u2, s2, v2 = full_svd(a) if b is None else svd_of_product(a, b)
    products = torch.outer(s1, s2).flatten() * abs(adapter.scale)
    order = products.argsort(descending=True)
    order = order[: _count(products[order], limits)]
    i, j = order // s2.shape[0], order % s2.shape[0]
    u = (u1[:, i].unsqueeze(1) * u2[:, j].unsqueeze(0)).flatten(0, 1)
    v = (v1[:, i].unsqueeze(1) * v2[:, j].unsqueeze(0)).flatten(0, 1)
    return u * math.copysign(1.0, adapter.scale), products[order], v


@svd_of.register(OnBase)
def _(adapter: OnBase, limits: Limits) -> Svd:
    adapter.refuse("delta weight")


def _cut(svd: Svd, limits: Limits) -> Svd:
    """The first of all singular values and vectors: as many as the limits want."""
    u, s, v = svd
    keep = _count(s, limits)
    return u[:, :keep], s[:keep], v[:, :keep]


def _count(s: Tensor, limits: Limits) -> int:
    """How many of all singular values the limits want: where no number of them will do, all."""
    if limits.max_error is None:
        return min(limits.rank or s.shape[0], s.shape[0])
    return limits.enough(least_rank(s, limits.max_error) or s.shape[0])


def _svd_of_matrix(matrix: Tensor, limits: Limits) -> Svd:
    """More and more of the singular vectors, until what they leave is little enough."""
    most = min(matrix.shape)
    guess = min(most, limits.rank or 16)
    while True:
        u, s, v = truncated(matrix, guess)
        if limits.max_error is None:
            return u, s, v
        rest = norm(matrix - (u * s) @ v.t()) ** 2
        keep = least_rank(s, limits.max_error, rest)
        if keep is not None or guess == most:
            keep = limits.enough(keep or guess)
            return u[:, :keep], s[:keep], v[:, :keep]
        guess = min(most, 4 * guess)
