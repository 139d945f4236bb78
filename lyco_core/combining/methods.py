"""How changes of one weight become one, by the methods' papers; each change comes multiplied by its strength.

What a file does not change is no change of it: such files are left out of what these functions are given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..devices import capable, norm

__all__ = ["breadcrumbs", "dare", "della", "elected", "slerp", "ties", "trimmed"]


def ties(changes: Sequence[Tensor], density: float) -> Tensor:
    """TIES-Merging (Yadav et al., arXiv:2306.01708): trim, elect a sign for each number, mean of those that have it."""
    return elected([trimmed(change, density) for change in changes])


def trimmed(change: Tensor, density: float) -> Tensor:
    """The share `density` of the numbers that are largest, and zeros."""
    size = change.abs()
    dropped = size.numel() - max(1, round(density * size.numel()))
    return change if dropped <= 0 else change * (size > _smallest(size, dropped))


def elected(changes: Sequence[Tensor]) -> Tensor:
    """For each number the sign of the sum, and the mean of those changes that have this sign: TIES' last two steps."""
    sign = sum(changes[1:], changes[0]).sign_() if len(changes) > 1 else changes[0].sign()
    total, count = torch.zeros_like(changes[0]), torch.zeros_like(changes[0])
    for change in changes:
        agrees = (change.sign() == sign) & (change != 0)
        total += change * agrees
        count += agrees
    return total.div_(count.clamp_(min=1))


def dare(changes: Sequence[Tensor], density: float, generators: Sequence[torch.Generator]) -> Tensor:
    """DARE (Yu et al., arXiv:2311.03099): each number is dropped with probability 1 - density, the others grow by
    1 / density; the changes are added up."""
    total = torch.zeros_like(changes[0])
    for change, generator in zip(changes, generators, strict=True):
        kept = _uniform(change, generator) < density
        total.add_(change * kept, alpha=1 / density)
    return total


def della(changes: Sequence[Tensor], density: float, epsilon: float, generators: Sequence[torch.Generator]) -> Tensor:
    """DELLA (Deep et al., arXiv:2406.11617): MAGPRUNE drops the small numbers of a row more often than the large ones,
    with probabilities from 1 - density - epsilon / 2, in steps of epsilon / n; then TIES' election and mean."""
    pruned: list[Tensor] = []
    for change, generator in zip(changes, generators, strict=True):
        rows = change.reshape(change.shape[0], -1) if change.dim() > 1 else change.reshape(1, -1)
        width = rows.shape[1]
        # 0 for the largest of its row.
        ranks = rows.abs().argsort(dim=1, descending=True, stable=True).argsort(dim=1)
        kept = density + epsilon / 2 - epsilon / width * ranks
        pruned.append((rows / kept * (_uniform(rows, generator) < kept)).reshape(change.shape))
    return elected(pruned)


def breadcrumbs(changes: Sequence[Tensor], density: float, gamma: float) -> Tensor:
    """Model Breadcrumbs (Davari and Belilovsky, arXiv:2312.06795): of each change the share `gamma` that is largest and
    all below the next `density` are masked; the rest is added up."""
    total = torch.zeros_like(changes[0])
    for change in changes:
        size = change.abs()
        outliers = round(gamma * size.numel())
        small = size.numel() - outliers - max(1, round(density * size.numel()))
        mask = size <= _smallest(size, size.numel() - outliers) if outliers else torch.ones_like(size, dtype=torch.bool)
        total += change * (mask if small <= 0 else mask & (size > _smallest(size, small)))
    return total


def slerp(first: Tensor, second: Tensor, share: float) -> Tensor:
    """Spherical linear interpolation (Shoemake, SIGGRAPH 1985): `share` of the way from the first to the second.

    Along the arc between their directions; straight where they have the same direction, or the opposite one.
    """
    one, other = norm(first), norm(second)
    cosine = float((capable(first).double() * capable(second).double()).sum()) / (one * other or 1.0)
    angle = math.acos(max(-1.0, min(1.0, cosine)))
    if not one or not other or math.sin(angle) < 1e-6:
        return torch.lerp(first, second, share)
    sine = math.sin(angle)
    return first * (math.sin((1 - share) * angle) / sine) + second * (math.sin(share * angle) / sine)


def _smallest(size: Tensor, count: int) -> Tensor:
    """The `count`-th smallest of magnitudes."""
    return size.flatten().kthvalue(count).values


def _uniform(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(like.shape, generator=generator).to(like.device)
