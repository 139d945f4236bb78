"""The keys of a file, sorted into modules by their names alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from torch import Tensor

from .foreign import foreign
from .grammar import underscored
from .modules import has_factors, is_adapter, is_companion
from .suffixes import NUMBERS, split_key

__all__ = ["Keys", "sort_keys"]


@dataclasses.dataclass(frozen=True)
class Keys:
    """The keys of a file, each where it belongs."""

    modules: Mapping[str, Mapping[str, str]]
    """What the keys of an adapter begin with -> suffix -> key."""
    unrecognised: tuple[str, ...]
    """Keys of modules that are no adapters, or have a tensor that is not known here."""
    foreign: Mapping[str, str]
    """Key -> what it is: known to be no adapter's."""

    @property
    def of_factors(self) -> Iterator[str]:
        """The keys of the adapters' tensors, without the single numbers beside them."""
        return (key for keys in self.modules.values() for suffix, key in keys.items() if suffix not in NUMBERS)


def sort_keys(keys: Collection[str], tensor: Callable[[str], Tensor]) -> Keys:
    """Sort the keys of a file.

    Args:
        tensor: gives a key's tensor; only the one that says how others are scaled is asked for.
    """
    left_out = {key: what for key in keys if (what := foreign(key, tensor))}
    modules: dict[str, Mapping[str, str]] = {}
    unrecognised: list[str] = []
    for prefix, found in _grouped(key for key in keys if key not in left_out).items():
        if is_adapter(found):
            modules[prefix] = found
        else:
            unrecognised += found.values()
    return Keys(modules, tuple(unrecognised), left_out)


def _grouped(keys: Iterable[str]) -> dict[str, dict[str, str]]:
    """What a module's keys begin with -> suffix -> key.

    An alpha or a magnitude joins the factors of its module that are spelled with dots where it has
    underscores, or the other way round.
    """
    grouped: dict[str, dict[str, str]] = {}
    spellings: dict[str, str] = {}
    for key in keys:
        prefix, suffix = split_key(key)
        grouped.setdefault(prefix, {})[suffix] = key
        if has_factors([suffix]):
            spellings.setdefault(underscored(prefix), prefix)
    for prefix in [prefix for prefix, found in grouped.items() if is_companion(found)]:
        whole = grouped.get(spellings.get(underscored(prefix), prefix), {})
        if whole is not grouped[prefix] and whole.keys().isdisjoint(grouped[prefix]):
            whole |= grouped.pop(prefix)
    return grouped
