"""The best LoRA of a given rank or error, by Eckart and Young: only where a person asks for it."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor

from ..adapters import Adapter, LoKr, LoRA
from ..errors import AdapterError
from .svd import Svd, rank_for, truncated

__all__ = ["best_lora"]


def best_lora(adapter: Adapter, *, rank: int | None = None, max_error: float | None = None) -> LoRA:
    """The LoRA of at most `rank`, or of the least rank whose relative error is at most `max_error`.

    A LoKr's singular values are the products of its factors', and a LoRA's are those of a matrix as
    small as its rank: for both the result is the best there is. Others go through a randomised SVD
    (arXiv:0909.4061) of ΔW with power iterations.

    Raises:
        AdapterError: ΔW is zero everywhere.
    """
    u, s, v = _svd(adapter, rank, max_error)
    keep = s.shape[0] if rank is None else min(rank, s.shape[0])
    if max_error is not None:
        total = float(_norm(adapter)) ** 2
        if total == 0:
            raise AdapterError("ΔW is zero everywhere: there is nothing to approximate")
        keep = min(keep, rank_for(s, total, max_error) or keep)
    root = s[:keep].sqrt()
    down = (v[:, :keep] * root).t().contiguous().reshape(keep, *adapter.shape[1:])
    return LoRA(u[:, :keep] * root, down, alpha=float(keep))


def _svd(adapter: Adapter, rank: int | None, max_error: float | None) -> Svd:
    if isinstance(adapter, LoKr):
        return _svd_of_kron(adapter, rank)
    if isinstance(adapter, LoRA):
        up, down = adapter.factors(torch.float32, adapter.up.device)
        return _svd_of_product(up * adapter.scale, down)
    delta = adapter.delta_weight().flatten(1)
    total, guess = float(delta.double().square().sum()), rank if rank is not None else 16
    while True:
        found = truncated(delta, guess)
        if max_error is None or rank is not None or guess >= min(delta.shape) or rank_for(found[1], total, max_error):
            return found
        guess *= 4


def _svd_of_kron(adapter: LoKr, rank: int | None) -> Svd:
    """kron(U1 S1 V1', U2 S2 V2') = kron(U1, U2) kron(S1, S2) kron(V1, V2)'."""
    device = next(iter(adapter.tensors.values())).device
    u1, s1, v1 = _full_svd(adapter.factor1(torch.float32, device))
    a, b = adapter.factor2(torch.float32, device)
    u2, s2, v2 = _full_svd(a) if b is None else _svd_of_product(a, b)
    products = torch.outer(s1, s2).flatten() * abs(adapter.scale)
    order = products.argsort(descending=True)[: rank or None]
    i, j = order // s2.shape[0], order % s2.shape[0]
    u = (u1[:, i].unsqueeze(1) * u2[:, j].unsqueeze(0)).flatten(0, 1)
    v = (v1[:, i].unsqueeze(1) * v2[:, j].unsqueeze(0)).flatten(0, 1)
    return u * math.copysign(1.0, adapter.scale), products[order], v


def _svd_of_product(a: Tensor, b: Tensor) -> Svd:
    """SVD of a @ b from QR of both: the only dense matrix is of the rank's size."""
    qa, ra = _qr(a)
    qb, rb = _qr(b.t())
    u, s, v = _full_svd(ra @ rb.t())
    return qa @ u, s, qb @ v


def _qr(matrix: Tensor) -> tuple[Tensor, Tensor]:
    return cast(tuple[Tensor, Tensor], torch.linalg.qr(matrix))


def _full_svd(matrix: Tensor) -> Svd:
    u, s, vh = cast(tuple[Tensor, Tensor, Tensor], torch.linalg.svd(matrix, full_matrices=False))
    return u, s, vh.t()


def _norm(adapter: Adapter) -> Tensor:
    return adapter.delta_weight().double().square().sum().sqrt()
