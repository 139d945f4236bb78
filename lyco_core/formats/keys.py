"""The keys of a file, sorted into modules by their names alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from torch import Tensor

from ..errors import AdapterError
from .foreign import foreign
from .grammar import format_of, underscored
from .modules import has_factors, is_adapter, is_companion
from .suffixes import NUMBERS, is_known, split_key

__all__ = ["Keys", "sort_keys"]


@dataclasses.dataclass(frozen=True)
class Keys:
    """The keys of a file, each where it belongs."""

    modules: Mapping[str, Mapping[str, str]]
    """What the keys of an adapter begin with -> suffix -> key."""
    unrecognised: tuple[str, ...]
    """Keys of modules that are no adapters, or have a tensor that is not known here; those tensors' own keys first."""
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

    Raises:
        AdapterError: a module has one tensor twice.
    """
    left_out = {key: what for key in keys if (what := foreign(key, tensor))}
    modules: dict[str, Mapping[str, str]] = {}
    unrecognised: list[str] = []
    for prefix, found in _grouped(key for key in keys if key not in left_out).items():
        if is_adapter(found):
            modules[prefix] = found
        else:
            unrecognised += found.values()
    return Keys(modules, tuple(sorted(unrecognised, key=lambda key: is_known(split_key(key)[1]))), left_out)


def _grouped(keys: Iterable[str]) -> dict[str, dict[str, str]]:
    """What a module's keys begin with -> suffix -> key.

    Tensors join the factors of their module that are spelled with dots where they have underscores, or the other way
    round: an alpha and magnitudes in any format, factors where every dot is an underscore.
    """
    grouped: dict[str, dict[str, str]] = {}
    spellings: dict[str, str] = {}
    for key in keys:
        prefix, suffix = split_key(key)
        own = grouped.setdefault(prefix, {})
        if suffix in own:
            raise AdapterError(
                f"{prefix}: has two tensors {suffix}, {own[suffix]} and {key}, of two adapters; save each as a file of "
                "its own"
            )
        own[suffix] = key
        if has_factors([suffix]):
            spellings.setdefault(underscored(prefix), prefix)
    for prefix in [prefix for prefix, found in grouped.items() if _joins(prefix, found)]:
        whole = grouped.get(spellings.get(underscored(prefix), prefix), {})
        if whole is not grouped[prefix] and whole.keys().isdisjoint(grouped[prefix]):
            whole |= grouped.pop(prefix)
    return grouped


def _joins(prefix: str, found: Iterable[str]) -> bool:
    """Whether a module's tensors belong to others that are spelled as one module with them."""
    format = format_of(prefix)
    return is_companion(found) or (format is not None and format.underscored)
