"""The options that a network has when it goes on from a file: the file's, where the file has them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from ..adapters import Adapter, LoKr
from ..adapters.factors import factorization
from .network_options import NetworkOptions

__all__ = ["options_from_file"]


def options_from_file(options: NetworkOptions, adapters: Iterable[Adapter]) -> NetworkOptions:
    """`options` with the rank, alpha and factor that all `adapters` share; what they do not share stays.

    These stand in the metadata of what is saved, and Musubi reads a LoKr by its factor.
    """
    adapters = list(adapters)
    ranks = {adapter.rank for adapter in adapters if adapter.rank is not None}
    scales = {adapter.scale for adapter in adapters if adapter.rank is not None}
    if len(ranks) == 1:
        rank = ranks.pop()
        alpha = scales.pop() * rank if len(scales) == 1 else options.network_alpha
        options = dataclasses.replace(options, network_dim=rank, network_alpha=alpha)
    lokrs = [adapter for adapter in adapters if isinstance(adapter, LoKr) and len(adapter.shape) == 2]
    factor = next((f for f in _candidates(options.factor, lokrs) if all(_made_by(f, lokr) for lokr in lokrs)), None)
    return options if factor is None else dataclasses.replace(options, factor=factor)


def _candidates(factor: int, lokrs: list[LoKr]) -> list[int]:
    """Factors that may have made them: the one that is set, an even split, then W1's own sizes."""
    sizes = {size for lokr in lokrs for size in _outer(lokr)}
    return [factor, -1, *sorted(sizes)]


def _made_by(factor: int, lokr: LoKr) -> bool:
    return _outer(lokr) == [factorization(size, factor)[0] for size in lokr.shape]


def _outer(lokr: LoKr) -> list[int]:
    """W1's shape."""
    return list(lokr.factor1(lokr.dtype, next(iter(lokr.tensors.values())).device).shape)
