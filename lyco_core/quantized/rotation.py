"""ConvRot's rotation: groups of columns times a regular Hadamard matrix, which is its own inverse."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from ..scratch import scratch
from .form import Unreadable

__all__ = ["require_groups", "rotated"]

_MOST = 4096
"""Columns of a group; real ones have 256."""


def require_groups(title: str, columns: int, group: int) -> None:
    """Raise `Unreadable` unless groups of so many columns can be rotated."""
    power = group.bit_length() - 1
    if group > _MOST or group < 4 or group != 1 << power or power % 2 or columns % group:
        raise Unreadable(
            f"{title} with a convrot_groupsize of {group} for {columns} columns, expected a power of 4 that divides it"
        )


def rotated(values: Tensor, group: int) -> Tensor:
    """Rows with each group of columns rotated, in memory of the thread's.

    The matrix is the Kronecker product of two small ones, which cost a quarter of the whole.
    """
    left, right = (_hadamard(size, values.device) for size in _sides(group))
    turned = scratch("half rotated", values.shape, device=values.device)
    torch.mm(values.reshape(-1, right.shape[0]), right, out=turned.view(-1, right.shape[0]))
    grids = turned.view(-1, left.shape[0], right.shape[0])
    out = scratch("rotated", values.shape, device=values.device)
    torch.bmm(left.expand(grids.shape[0], *left.shape), grids, out=out.view(grids.shape))
    return out


def _sides(group: int) -> tuple[int, int]:
    """Two powers of 4 whose product it is, the second no smaller than the first."""
    fours = (group.bit_length() - 1) // 2
    return 4 ** (fours // 2), 4 ** (fours - fours // 2)


@functools.lru_cache(16)
def _hadamard(size: int, device: torch.device) -> Tensor:
    """Symmetric and orthogonal: a Kronecker power of 4 x 4, each of whose rows sums to 2, over its root."""
    with torch.inference_mode(False):
        four = torch.ones(4, 4) - 2 * torch.eye(4).flip(1)
        matrix = torch.ones(1, 1)
        while matrix.shape[0] < size:
            matrix = torch.kron(matrix, four)
        return (matrix / size**0.5).to(device)
