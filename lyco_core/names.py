"""What a module goes by: every spelling that a message prints is one that a pattern may match."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .adapter_set import AdapterSet
from .formats import split_key
from .layouts import parameter_of
from .placement import KEY_PREFIXES, Placed, Placement, targets_of
from .selection import Selection, weight_path

__all__ = ["Names", "every_name", "names_in", "wanted", "weight_names"]

Names = Mapping[Placed | str, tuple[str, ...]]
"""A place, the path of a module that has none or does not fit it, or a key of no adapter -> what it goes by."""


def weight_names(key: str, prefix: str = "") -> tuple[str, ...]:
    """A weight of a model whose keys begin with `prefix`: its path, and its key there and in ComfyUI."""
    keys = (key, f"{KEY_PREFIXES['comfyui']}{key.removeprefix(prefix)}")
    return (weight_path(key, prefix), *keys, *(k.removesuffix(".weight") for k in keys))


def names_in(placement: Placement, prefix: str) -> dict[Placed | str, tuple[str, ...]]:
    """The names of everything in a file, for a model whose keys begin with `prefix`."""
    found = placement.adapter_set
    names: dict[Placed | str, tuple[str, ...]] = {}
    for placed in placement.placed:
        theirs = _in_comfyui(found, placed.module_path)
        # Where ComfyUI has several, a place is one of them, and its own key says which.
        keys = theirs if len(theirs) == 1 else []
        names[placed] = _names(found, placed.module_path, *weight_names(placed.key, prefix), keys=keys)
    for path in placement.homeless:
        names[path] = _names(found, path, keys=_in_comfyui(found, path))
    for misfit in placement.misfits:
        path = misfit.module_path
        names[path] = _names(found, path, *weight_names(misfit.key, prefix), keys=_in_comfyui(found, path))
    for key in found.unrecognised:
        names[key] = (key, split_key(key)[0])
    return names


def every_name(names: Mapping[Any, tuple[str, ...]]) -> Iterable[str]:
    """All of them."""
    return (name for several in names.values() for name in several)


def wanted(placement: Placement, selection: Selection, names: Names) -> Placement:
    """Without what has no place, or does not fit, where it takes no part anyway."""
    if not selection or placement.complete:
        return placement
    strengths = selection.strengths({item: names[item] for item in placement.left})
    return placement.without({item for item, strength in strengths.items() if strength == 0})


def _names(found: AdapterSet, path: str, *own: str, keys: list[str]) -> tuple[str, ...]:
    """A module's path, its spelling in the file, `own` names, and those of its weights `keys` in ComfyUI."""
    return (path, found.prefixes[path], *own, *(name for key in keys for name in weight_names(key)))


def _in_comfyui(found: AdapterSet, path: str) -> list[str]:
    """The weights that the tables have for a module there."""
    module, parameter = parameter_of(path)
    return [f"{target.path}{parameter}" for target in targets_of(found, module, "comfyui")]
