"""The adapter nearest to a difference of two weights, for each algorithm that a low rank makes small."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ..adapters import Adapter, Full
from .hadamard import nearest_loha
from .kronecker import nearest_lokr
from .lora import best_lora
from .options import ExtractOptions

__all__ = ["NEAREST"]


def _lora(delta: Tensor, options: ExtractOptions) -> Adapter:
    assert options.limits is not None
    return best_lora(Full(delta), options.limits.before_rounding(options.dtype))


def _loha(delta: Tensor, options: ExtractOptions) -> Adapter:
    assert options.rank is not None
    return nearest_loha(delta.flatten(1), options.rank)


def _lokr(delta: Tensor, options: ExtractOptions) -> Adapter:
    return nearest_lokr(delta, options.factor, options.rank)


NEAREST: dict[str, Callable[[Tensor, ExtractOptions], Adapter]] = {"lora": _lora, "loha": _loha, "lokr": _lokr}
"""Algorithm id -> the adapter nearest to a difference, (out, in) or (out, in, *kernel), as the options want it."""
