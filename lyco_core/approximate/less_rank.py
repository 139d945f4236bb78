"""An adapter of less rank, which stays of its algorithm."""

from __future__ import annotations

import torch

from ..adapters import BOFT, IA3, OFT, Adapter, ByType, DoRA, Full, GLoRA, LoHa, LoKr, LoRA
from .hadamard import nearest_loha
from .lora import best_lora
from .options import Asked
from .report import relative_error
from .svd import rank_for, svd_of_product, truncated

__all__ = ["resized"]


@ByType
def resized(adapter: Adapter, asked: Asked) -> Adapter | None:
    """The same algorithm with less rank, in float32; None where that would not be smaller.

    Raises:
        RankTooSmall: both a rank and an error are asked for, and the error needs a larger rank.
    """
    ...


@resized.register(LoRA)
def _(adapter: LoRA, asked: Asked) -> LoRA | None:
    made = best_lora(adapter, asked)
    return made if made.rank < adapter.rank else None


@resized.register(DoRA)
def _(adapter: DoRA, asked: Asked) -> DoRA | None:
    """Its magnitudes stay, so its changed weight still has their norms."""
    inner = resized(adapter.inner, asked)
    return None if inner is None else adapter.on(inner)


@resized.register(LoKr)
def _(adapter: LoKr, asked: Asked) -> LoKr | None:
    """w1 stays; w2 becomes the best of its rank, whose relative error is the whole change's."""
    a, b = adapter.factor2(torch.float32, next(iter(adapter.tensors.values())).device)
    rows, columns = a.shape[0], a.shape[1] if b is None else b.shape[1]
    most = min(rows, columns) if b is None else b.shape[0]
    if b is not None:
        u, s, v = svd_of_product(a, b)
    else:
        u, s, v = truncated(a, asked.rank if asked.rank and asked.max_error is None else most)
    rank = most if asked.rank is None else min(asked.rank, most)
    if asked.max_error is not None:
        rank = asked.enough(rank_for(s, asked.max_error) or most)
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
def _(adapter: LoHa, asked: Asked) -> LoHa | None:
    """By rank; by error, the first of 1, 2, 4, … and the rank, below its own, that is near enough."""
    own = adapter.rank
    sizes: set[int] = set() if asked.rank is None else {asked.rank}
    if asked.max_error is not None:
        sizes |= {2**n for n in range(own.bit_length())}
    delta = adapter.delta_weight().flatten(1)
    for size in sorted(size for size in sizes if size < own):
        made = nearest_loha(delta, size)
        if asked.max_error is None or relative_error(made, delta.clone())[0] <= asked.max_error:
            asked.enough(size)
            return made
    asked.enough(own)
    return None


@resized.register(Full, GLoRA, IA3, OFT, BOFT)
def _(adapter: Adapter, asked: Asked) -> None:
    """None has a smaller form of its own."""
    return None
