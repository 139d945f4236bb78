"""An adapter of less rank, which stays of its algorithm."""

from __future__ import annotations

import torch

from ..adapters import BOFT, IA3, OFT, Adapter, BoRA, ByType, DoRA, Full, GLoRA, LoHa, LoKr, LoRA, OFTv2, Swapped
from .hadamard import nearest_loha
from .lora import best_lora
from .options import Limits
from .report import relative_error
from .svd import least_rank, svd_of_product, truncated

__all__ = ["resized"]


@ByType
def resized(adapter: Adapter, limits: Limits) -> Adapter | None:
    """An adapter of the same algorithm with less rank, in float32; None where it would not be smaller.

    Raises:
        RankTooSmall: `limits` has both a rank and an error, and the error needs a larger rank.
    """
    ...


@resized.register(LoRA)
def _(adapter: LoRA, limits: Limits) -> LoRA | None:
    made = best_lora(adapter, limits)
    return made if made.rank < adapter.rank else None


@resized.register(DoRA)
def _(adapter: DoRA, limits: Limits) -> DoRA | None:
    """Its magnitudes stay, so its changed weight still has their norms."""
    inner = resized(adapter.inner, limits)
    return None if inner is None else adapter.on(inner)


@resized.register(LoKr)
def _(adapter: LoKr, limits: Limits) -> LoKr | None:
    """w1 stays; w2 becomes the best of its rank, whose relative error is the whole change's."""
    a, b = adapter.factor2(torch.float32, next(iter(adapter.tensors.values())).device)
    rows, columns = a.shape[0], a.shape[1] if b is None else b.shape[1]
    most = min(rows, columns) if b is None else b.shape[0]
    if b is not None:
        u, s, v = svd_of_product(a, b)
    else:
        u, s, v = truncated(a, limits.rank if limits.rank and limits.max_error is None else most)
    rank = most if limits.rank is None else min(limits.rank, most)
    if limits.max_error is not None:
        rank = limits.enough(least_rank(s, limits.max_error) or most)
    # A product of rank r has r * (rows + columns) numbers.
    smaller = rank < most if b is not None else rank * (rows + columns) < rows * columns
    if not smaller:
        return None
    half = s[:rank].sqrt()
    return LoKr(
        w1=adapter.w1,
        w1_a=adapter.w1_a,
        w1_b=adapter.w1_b,
        w2_a=u[:, :rank] * half,
        w2_b=(v[:, :rank] * half).t().reshape(rank, *adapter.shape2[1:]),
        alpha=adapter.scale * rank,
    )


@resized.register(LoHa)
def _(adapter: LoHa, limits: Limits) -> LoHa | None:
    """Of the rank that is given; to keep to an error, of the first of 1, 2, 4, … and that rank that is near enough."""
    own = adapter.rank
    sizes: set[int] = set() if limits.rank is None else {limits.rank}
    if limits.max_error is not None:
        sizes |= {2**n for n in range(own.bit_length())}
    delta = adapter.delta_weight().flatten(1)
    for size in sorted(size for size in sizes if size < own):
        made = nearest_loha(delta, size)
        if limits.max_error is None or relative_error(made, delta.clone())[0] <= limits.max_error:
            limits.enough(size)
            return made
    limits.enough(own)
    return None


@resized.register(Full, GLoRA, IA3, OFT, BOFT, OFTv2, BoRA, Swapped)
def _(adapter: Adapter, limits: Limits) -> None:
    """None has a smaller form of its own."""
    return None
