"""What a module goes by: every spelling that a message prints is one that a pattern may match."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from .adapter_set import AdapterSet
from .formats import split_key
from .layouts import parameter_of
from .placed import KEY_PREFIXES, Placed, targets_in
from .selection import weight_path

if TYPE_CHECKING:
    from .placement import Placement

__all__ = ["Names", "every_name", "names_in", "weight_names"]

Names = Mapping[Placed | str, tuple[str, ...]]
"""A place, the path of a module that has none or does not fit it, or a key of no adapter -> what it goes by."""


def weight_names(key: str, prefix: str = "") -> tuple[str, ...]:
    """A weight of a model whose keys begin with `prefix`: its path, and its key there and in ComfyUI."""
    keys = (key, f"{KEY_PREFIXES['comfyui']}{key.removeprefix(prefix)}")
    return (weight_path(key, prefix), *keys, *(k.removesuffix(".weight") for k in keys))


def names_in(placement: Placement) -> dict[Placed | str, tuple[str, ...]]:
    """The names of everything in a file, for the model that it is placed on."""
    found, prefix = placement.adapter_set, placement.prefix
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
    """All names of all that is in `names`."""
    return (name for several in names.values() for name in several)


def _names(found: AdapterSet, path: str, *own: str, keys: list[str]) -> tuple[str, ...]:
    """A module's path, its spelling in the file, `own` names, and those of its weights `keys` in ComfyUI."""
    return (path, found.prefixes[path], *own, *(name for key in keys for name in weight_names(key)))


def _in_comfyui(found: AdapterSet, path: str) -> list[str]:
    """The weights that the tables have for a module there."""
    parameter = parameter_of(path)[1]
    return [f"{target.path}{parameter}" for target in targets_in(found, path, "comfyui")]
