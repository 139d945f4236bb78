"""Where on a ComfyUI model a patch goes, and what goes there."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

from comfy.weight_adapter.base import WeightAdapterBase

from ....lyco_core.adapters import agreed
from ....lyco_core.errors import AdapterError, PlacementError
from ....lyco_core.placed import Placed
from ..protocols import ModelPatcher, PatchKey, Reorder, Rows
from .patch import LycoPatch

Patch: TypeAlias = LycoPatch | WeightAdapterBase | tuple[str, tuple[Any, ...]]
"""Ours, or one of ComfyUI's own: an adapter, or a kind (`diff`, `set`) with its tensors."""


class Place(NamedTuple):
    """A weight of a model, or a part of it."""

    key: str
    rows: Rows | None = None
    """None for all of them."""
    reorder: Reorder | None = None

    @classmethod
    def of(cls, key: PatchKey) -> Place:
        """The place that ComfyUI spells as `key`."""
        if isinstance(key, str):
            return cls(key)
        return cls(key[0], key[1], key[2] if len(key) == 3 else None)

    @classmethod
    def of_placed(cls, placed: Placed) -> Place:
        """The place of a piece of a `Placement`."""
        if placed.rows is None:
            return cls(placed.key)
        start, stop = placed.rows
        return cls(placed.key, (0, start, stop - start))

    @property
    def patch_key(self) -> PatchKey:
        """The key by which `add_patches` takes it."""
        if self.reorder is not None:
            return self.key, self.rows, self.reorder
        return self.key if self.rows is None else (self.key, self.rows)

    @property
    def band(self) -> tuple[float, float]:
        """Its first row and the one after its last; infinity for the end of the weight."""
        if self.rows is None:
            return 0, math.inf
        _, start, length = self.rows
        return start, start + length

    def shape_in(self, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
        """The shape of this part, in a model whose weights have `shapes`."""
        shape = list(shapes[self.key])
        if self.rows is not None:
            dimension, _, length = self.rows
            shape[dimension] = length
        return tuple(shape)


Patches: TypeAlias = dict[Place, Patch]
"""What is patched where."""


class Change(NamedTuple):
    """A patch, and how much of it is added."""

    patch: Patch
    strength: float


Changes: TypeAlias = dict[Place, Change]
"""What changes where, of one file on one model."""


def scaled(changes: Mapping[Place, Change], strength: float) -> Changes:
    """`changes`, each at `strength` times its own strength."""
    return {place: Change(change.patch, strength * change.strength) for place, change in changes.items()}


def add_changes(patcher: ModelPatcher, changes: Mapping[Place, Change]) -> None:
    """Patch the weights of a clone with `changes`.

    Raises:
        PlacementError: ComfyUI did not take all of them.
    """
    for strength in dict.fromkeys(change.strength for change in changes.values()):
        patches = {place.patch_key: patch for place, (patch, own) in changes.items() if own == strength}
        if lost := patches.keys() - set(patcher.add_patches(patches, strength)):
            raise PlacementError(
                f"ComfyUI did not take {len(lost)} patches, e.g. {next(iter(lost))}; nothing is applied"
            )


def put(patches: Patches, place: Place, patch: Patch, prefix: str) -> None:
    """Add a patch. Two adapters of one file for the same rows count once if they agree; else there is no choice."""
    if place in patches:
        patch = _agreed(patches[place], patch, prefix, place.key)
    patches[place] = patch


def _agreed(first: Patch, second: Patch, prefix: str, key: str) -> Patch:
    """The one of two patches of the same rows that counts. Raises `AdapterError` if they contradict each other."""
    if isinstance(first, LycoPatch) and isinstance(second, LycoPatch):
        one, two = first.adapter, second.adapter
        if (kept := agreed(one, two)) is not None:
            return first if kept is one else second
    other = _prefixes(first)
    raise AdapterError(
        f"{prefix}: another module of the file{f', {other},' if other else ''} changes the same weight, {key}, and "
        "not alike; remove one of them from the file"
    )


def require_apart(patches: Iterable[tuple[Place, Patch]]) -> None:
    """Raise `AdapterError` if a patch of some rows meets one of other rows, or of all, that share some with it."""
    of_key: dict[str, list[tuple[Place, Patch]]] = {}
    for place, patch in patches:
        of_key.setdefault(place.key, []).append((place, patch))
    for key, there in of_key.items():
        for (one, first), (other, second) in itertools.combinations(there, 2):
            if max(one.band[0], other.band[0]) < min(one.band[1], other.band[1]):
                names = [_prefixes(patch) or "another" for patch in (first, second)]
                raise AdapterError(
                    f"{' and '.join(names)} both change {key}, one of them in part; remove one of them from the file"
                )


def _prefixes(patch: Patch) -> str:
    """What a patch's keys in its file begin with; empty where it does not say."""
    return ", ".join(getattr(patch, "loaded_keys", ()))
