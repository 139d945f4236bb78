"""From a file's module names to a family's dotted paths."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from ..adapter_set import AdapterSet
from ..errors import AdapterError
from ..layouts import Layout, parameter_of
from ..modules_once import ModulesOnce
from .interleaved import head_by_head, stacked
from .table import Architecture

__all__ = ["named_as", "part_named_as", "with_paths"]


def with_paths(
    adapter_set: AdapterSet,
    names: Mapping[str, str],
    family: Architecture,
    layout: Layout,
    exceptions: Mapping[str, Layout],
) -> AdapterSet:
    """The set with dotted module paths; each module counts once, by whatever names the file has it.

    Args:
        names: name as the file spells it -> path; what is not in it keeps its spelling.
        layout: whose names the paths are, but for `exceptions`.

    Raises:
        AdapterError: a module is there under two names, and the two contradict each other.
    """
    modules = ModulesOnce()
    keys = dict(adapter_set.keys)
    for name, adapter in adapter_set.adapters.items():
        path, prefix = names.get(name, name), adapter_set.prefixes[name]
        if head_by_head(adapter_set, path, prefix, family, exceptions.get(path, layout)):
            try:
                adapter = stacked(adapter, family.diffsynth_head)
            except AdapterError as error:
                raise error.within(prefix) from None
            keys.pop(prefix, None)  # by which the rows would be taken for DiffSynth's again
        modules.add(path, adapter, prefix)
    alphas = {
        prefix: adapter_set.alpha_tensors[module]
        for name, prefix in adapter_set.prefixes.items()
        if (module := parameter_of(name)[0]) in adapter_set.alpha_tensors
    }
    return dataclasses.replace(
        adapter_set,
        adapters=modules.adapters,
        prefixes=modules.prefixes,
        alpha_tensors={
            parameter_of(path)[0]: alphas[prefix] for path, prefix in modules.prefixes.items() if prefix in alphas
        },
        idle={**adapter_set.idle, **modules.idle},
        architecture=family,
        layout=layout,
        exceptions=exceptions,
        names=names,
        keys=keys,
    )


def named_as(adapter_set: AdapterSet, outline: AdapterSet) -> AdapterSet:
    """The set with the paths, architecture and layout that `identify` gave the outline of the same file.

    The set as it was, where the outline has none, or is of a file with other names.
    """
    if outline.architecture is None or not outline.names.keys() <= adapter_set.adapters.keys():
        return adapter_set
    return dataclasses.replace(part_named_as(adapter_set, outline), also=outline.also)


def part_named_as(adapter_set: AdapterSet, outline: AdapterSet) -> AdapterSet:
    """`named_as` of some modules of the outline's file."""
    if outline.architecture is None or outline.layout is None:
        return adapter_set
    return with_paths(adapter_set, outline.names, outline.architecture, outline.layout, outline.exceptions)
