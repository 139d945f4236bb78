"""The weights of a model by its own names for them, where no family's table has a module."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

from .formats.grammar import unwrapped
from .placed import Shape

__all__ = ["OwnNames"]


@dataclasses.dataclass(frozen=True)
class OwnNames:
    """What the modules of a model, and their biases, are called."""

    weights: Mapping[str, Shape]
    """By key; asked for its keys alone."""
    prefix: str
    """What its keys begin with; names have it or lack it."""

    def keys(self, path: str, spelled: str) -> list[str]:
        """The keys that a module's name may mean, by itself or without what a wrapper has before it.

        Args:
            spelled: its whole name in the file: some models have modules that are called as formats' prefixes are.
        """
        for name in (path, *unwrapped(path)):
            several = [self._keys.get(form) or self._keys.get(form.replace(".", "_")) or [] for form in (name, spelled)]
            if keys := list(dict.fromkeys(key for keys in several for key in keys)):
                return keys
        return []

    @functools.cached_property
    def _keys(self) -> dict[str, list[str]]:
        """Name, with the prefix or without, in dots or underscores -> the keys of it."""
        names: dict[str, list[str]] = {}
        for key in self.weights:
            if key.startswith(self.prefix):
                whole = key.removesuffix(".weight")
                dotted = {whole, whole[len(self.prefix) :]}
                for name in dotted | {name.replace(".", "_") for name in dotted}:
                    names.setdefault(name, []).append(key)
        return names
