"""Adapters that are not all in memory: each is read, or made, when it is asked for."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Mapping

from .adapters import Adapter

__all__ = ["OnDemand"]

KEPT = 4
"""How many stay, the last that were asked for: what another layout cuts is asked for once for each of its parts."""


class OnDemand(Mapping[str, Adapter]):
    """Module path -> adapter, of which the last few that were asked for are kept.

    Args:
        paths: of all modules, in the file's order.
        get: reads or makes one; what it raises, asking raises.
    """

    def __init__(self, paths: Collection[str], get: Callable[[str], Adapter]) -> None:
        self._paths = dict.fromkeys(paths)
        self._get = functools.lru_cache(KEPT)(get)

    def __getitem__(self, path: str) -> Adapter:
        if path not in self._paths:
            raise KeyError(path)
        return self._get(path)

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)
