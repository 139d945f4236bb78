"""The modules of a file as another layout divides them: renamed, cut, or stacked; exact."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from ..adapter_set import AdapterSet
from ..adapters import Adapter, OnBase, Swapped, times, to_lora
from ..adapters.stack import stacked
from ..errors import PlacementError, Remedy
from ..layouts import LAYOUTS, Layout
from ..on_demand import OnDemand
from ..placed import Placed
from ..placement import Placement, place
from ..selection import EVERYTHING, Selection
from .result import Converted

__all__ = ["as_lora_where_uncut", "exact_module", "exact_modules", "layout_for", "placed_in"]


def layout_for(found: AdapterSet, to: Layout) -> Layout:
    """Whose module names a file for `to` has: ComfyUI takes some families by others' names than its own."""
    if to == "comfyui" and found.layout != "comfyui" and found.architecture is not None:
        return found.architecture.comfyui_takes
    return to


def placed_in(found: AdapterSet, layout: Layout, selection: Selection = EVERYTHING) -> Placement:
    """Where all of it that is selected goes in the new file; the placement's set has nothing else.

    Raises:
        PlacementError: something of it has no place in `layout`.
        SelectionError: see `Placement.chosen`.
    """
    placement = place(found, layout=layout, prefix="").select(selection)
    if not placement.complete and (others := _what_would_work(placement)):
        raise PlacementError(placement.problem(), Remedy.OTHER_LAYOUT, others)
    placement.require_complete()
    if not selection:
        return placement
    taken = {placed.module_path for placed in placement.chosen()}
    adapters = {path: adapter for path, adapter in placement.adapter_set.adapters.items() if path in taken}
    return dataclasses.replace(
        placement.without(placement.adapter_set.adapters.keys() - taken),
        adapter_set=dataclasses.replace(placement.adapter_set, adapters=adapters),
    )


def exact_modules(placement: Placement, to: Layout) -> list[Converted]:
    """The modules of the new file, exact.

    Raises:
        PlacementError: one cannot be cut or stacked as the layout wants it.
    """
    found = placement.adapter_set
    adapters = as_lora_where_uncut(found.adapters, placement)
    return [
        exact_module(key.removesuffix(".weight"), [(placed, 1.0) for placed, _ in changes], found, adapters, to)
        for key, changes in placement.by_weight.items()
    ]


def _what_would_work(placement: Placement) -> str:
    """The layouts that have a place for what this one has none for."""
    source, architecture = placement.adapter_set.layout, placement.adapter_set.architecture
    if source is None or architecture is None:
        return ""
    paths = [p for p in placement.homeless if architecture.resolve(p, source, underscored=False)]
    if not paths or len(paths) < len(placement.homeless):
        return ""
    others = [layout for layout in LAYOUTS if all(architecture.locate(path, source, layout) for path in paths)]
    return " or ".join(others)


def as_lora_where_uncut(adapters: Mapping[str, Adapter], placement: Placement) -> Mapping[str, Adapter]:
    """`adapters`, with the LoRA in place of each that must be cut and cannot; it is made when it is asked for, and kept
    for all of its parts."""
    cuts: dict[str, list[tuple[int, int]]] = {}
    for piece in placement.placed:
        if piece.source_rows is not None:
            cuts.setdefault(piece.module_path, []).append(piece.source_rows)

    def get(path: str) -> Adapter:
        adapter = adapters[path]
        uncut = any(adapter.rows(*rows) is None for rows in cuts.get(path, ()))
        return (to_lora(adapter) or adapter) if uncut else adapter

    return OnDemand(adapters, get)


def exact_module(
    path: str,
    changes: Sequence[tuple[Placed, float]],
    found: AdapterSet,
    adapters: Mapping[str, Adapter],
    to: Layout,
) -> Converted:
    """One module of the new file from the pieces that lie on it.

    Args:
        changes: the pieces, each with the strength that becomes part of its numbers; only 1 for what is on the base.
        adapters: see `as_lora_where_uncut`.

    Raises:
        PlacementError: they cannot be cut or stacked as the layout wants it.
    """
    pieces = [placed for placed, _ in changes]
    sources = tuple(piece.module_path for piece in pieces)
    whole = len(pieces) == 1 and pieces[0].rows is None
    how, adapter = "renamed", adapters[sources[0]]
    if whole and pieces[0].swapped:
        adapter, how = pieces[0].part(adapter), "swapped"
        if isinstance(adapter, Swapped):
            raise PlacementError(
                f"{sources[0]}: the halves of its rows change places in {path}, as the {to} layout wants it, and "
                f"{adapter.inner.title} mixes them; load it onto the model, or merge it"
            )
    elif whole and pieces[0].source_rows is not None:
        adapter = pieces[0].part(adapter)
        how = "cut" if adapter.algorithm == found.adapters[sources[0]].algorithm else f"as {adapter.title}"
    elif not whole:
        parts = [((p.rows or (0, 0))[0], times(p.part(adapters[p.module_path]), share)) for p, share in changes]
        fused = stacked(parts, pieces[0].shape[0])
        if fused is None:
            on_base = any(isinstance(part, OnBase) for _, part in parts)
            raise PlacementError(
                f"{', '.join(sources)}: cannot be one module, {path}, as the {to} layout wants it"
                + ("; load it onto the model, or merge it" if on_base else ""),
                None if on_base else Remedy.AS_LORA,
            )
        kinds = {part.algorithm for _, part in parts}
        adapter, how = fused, "stacked" if kinds == {fused.algorithm} else f"as {fused.title}"
    return Converted(path, sources, times(adapter, changes[0][1]) if whole else adapter, how)
