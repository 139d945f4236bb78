"""Which model family a file is for, and whose module names it has: found from names and shapes alone."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Iterable

from ..adapter_set import AdapterSet
from ..adapters import ANY
from ..errors import ArchitectureError, Remedy
from ..formats.grammar import unwrapped
from ..layouts import BIAS, LAYOUTS, Layout, parameter_of
from ..text import shorten
from .candidates import AdapterNames, candidates, of_other_models
from .evidence import contradiction, doubt, ruled_out
from .onto import ModelModules, Onto, with_shapes
from .reading import Reading, read, spelled
from .registry import ARCHITECTURES
from .renaming import with_paths
from .table import Architecture

__all__ = ["identify", "recognise"]

_ORDER = list(ARCHITECTURES.values())
"""The families that more adapters are for come first: of a part of a model that several have, the first is named."""


def identify(
    adapter_set: AdapterSet,
    *,
    architecture: str | None = None,
    model_modules: ModelModules | Collection[str] | None = None,
    prefer: str | None = None,
    layout: Layout = "comfyui",
) -> AdapterSet:
    """The set with dotted module paths, its architecture and layout filled in.

    A family is told if nothing in the file contradicts it. Names that it does not have keep their
    spelling; a set of no known family comes back as it was, but for what ruled out the nearest.

    Args:
        architecture: the family's id, where a person says it: then half of the names are enough.
        model_modules: module paths of the model, in `layout`, with the shapes of their weights where those are
            known: a file that lies on them all is for that model, and of several families the one decides that puts
            most of it there.
        prefer: of families that fit equally well, the one to name: the model's, say.
        layout: where the adapters are to go; families that put them on the same weights there are
            no rivals.

    Raises:
        ArchitectureError: several families fit equally well and would put the adapters on different weights, or the
            names are too few to tell one.
    """
    if architecture is not None and architecture not in ARCHITECTURES:
        raise ArchitectureError(f"there is no architecture {architecture!r}; known are {', '.join(ARCHITECTURES)}")
    if adapter_set.format is None:
        return adapter_set
    names = AdapterNames.of(adapter_set)
    onto = None if model_modules is None else Onto.of(model_modules, prefer, layout)
    best, why = _told(names, onto) if architecture is None else (_said(names, architecture, onto), "")
    if not best and architecture is not None and adapter_set.adapters:
        spelled_so = shorten(list(adapter_set.prefixes.values()))
        raise ArchitectureError(f"is no adapter for {ARCHITECTURES[architecture].title}: its modules are {spelled_so}")
    if onto is not None and onto.family is None and not any(map(onto.has_all, best)) and onto.names_all(names.telling):
        best = []  # no table has the model, and its own names place everything
    if not best:
        return dataclasses.replace(adapter_set, doubt=why)
    hint = adapter_set.metadata.get("lyco_architecture")
    fitting = ", ".join(sorted({r.architecture.id for r in best}))
    usual = "musubi" if adapter_set.format.id in ("musubi", "comfyui") else "diffusers"
    best.sort(key=lambda r: (r.architecture.id not in (prefer, hint), not r.has_last, r.has_last and r.layout != usual))
    if adapter_set.format.id == "musubi" and any(r.musubis_own for r in best):  # then no other names are rivals
        best = [r for r in best if r.musubis_own or r.has_last or r.architecture.id in (prefer, hint)]
    chosen, *alike = (
        best[:1] if best[0].architecture.id in (architecture, hint) else _choose(best, fitting, onto, layout)
    )
    mixed = _mixed(adapter_set, chosen)
    found = {**chosen.paths, **{name: path for name, (path, _) in mixed.items()}}
    others: dict[str, Layout] = {
        parameter_of(path)[0]: layout for path, layout in mixed.values() if layout != chosen.layout
    }
    named = with_paths(adapter_set, found, chosen.architecture, chosen.layout, others)
    told = chosen.is_whole or chosen.architecture.id == prefer
    also = (
        {} if told else {r.architecture.id: r.architecture for r in alike if r.architecture is not chosen.architecture}
    )
    return dataclasses.replace(named, also=tuple(also.values()))


def recognise(modules: ModelModules | Iterable[str]) -> tuple[Architecture | None, Layout] | None:
    """The family and layout whose module names at least half of a model's `modules` are, and that nothing contradicts.

    Without the family where some blocks of a model have ComfyUI's names of several: of those that fit equally well, one
    is told that has all blocks, or something beside them.

    Args:
        modules: their paths, with the shapes of their weights where those are known.
    """
    shapes = {path: _flat(shape) for path, shape in with_shapes(modules).items()}
    readings = [
        read(family, layout, shapes, shapes, underscored=False)
        for _, family, layout in candidates(shapes, ARCHITECTURES.values(), underscored=False)
    ]
    best = _most((r for r in _fullest(readings) if not contradiction(r)), lambda r: len(r.paths))
    best = _most(_most(best, lambda r: r.has_last), lambda r: r.is_whole)
    if not best:
        return None
    told = best[0].is_whole or best[0].has_more or len({r.architecture.id for r in best if r.layout == "comfyui"}) < 2
    return best[0].architecture if told else None, best[0].layout


def _flat(shape: tuple[int, ...] | None) -> tuple[int, int] | None:
    """(out, in) of a weight; None for a vector, and for what is not known."""
    return None if shape is None or len(shape) < 2 else (shape[0], math.prod(shape[1:]))


def _told(names: AdapterNames, onto: Onto | None) -> tuple[list[Reading], str]:
    """The readings that may be meant, equally good; where there are none, which family was nearest, and why not."""
    if onto is not None and onto.family is not None:
        for underscored in names.underscored:
            own = [reading for _, reading in names.readings((onto.family,), underscored=underscored)]
            if best := [r for r in own if onto.has_all(r) and not _doubt(r, onto)]:
                return _most(best, lambda r: len(r.paths)), ""
    seen: list[Reading] = []
    for underscored in names.underscored:
        readings: list[Reading] = []
        best: list[Reading] = []
        for count, reading in names.readings(ARCHITECTURES.values(), underscored=underscored):
            if best and count < best[0].fitting:  # none of those that are left explains as many
                break
            readings.append(reading)
            best = _best([r for r in _fullest(readings) if _explains_half(r) and not ruled_out(r)], onto)
        if best:
            return best, ""
        seen += readings
    if onto is not None:  # what of it is the model's may be wanted without the rest
        own = [r for r in seen if r.architecture is onto.family]
        own = [r for r in own if 2 * onto.homes(r) >= r.total or (_explains_half(r) and not contradiction(r))]
        return _most(own, onto.homes), ""
    nearest = max(_fullest(seen), key=lambda r: r.fitting, default=None)
    why = "" if nearest is None else ruled_out(nearest)
    return [], f"{nearest.architecture.title} comes nearest, but {why}" if nearest and why else ""


def _said(names: AdapterNames, architecture: str, onto: Onto | None) -> list[Reading]:
    """The readings as the family that a person says."""
    for underscored in names.underscored:
        readings = names.readings((ARCHITECTURES[architecture],), underscored=underscored)
        if best := _best([r for _, r in readings if _explains_half(r)], onto):
            return best
    return []


def _explains_half(reading: Reading) -> bool:
    return bool(reading.paths) and 2 * reading.fitting >= reading.total


def _best(readings: list[Reading], onto: Onto | None) -> list[Reading]:
    """Those that explain most modules, and of those the ones that put most of them on the model's own."""
    best = _most(readings, lambda r: r.fitting)
    best = _most(best, lambda r: len(r.paths))
    best = _most(best, lambda r: r.whole_names)
    return best if onto is None else _most(best, onto.homes)


def _fullest(readings: Iterable[Reading]) -> list[Reading]:
    """Of each family those in the layout that has most of the names: in another, what contradicts has no name."""
    families: dict[str, list[Reading]] = {}
    for reading in readings:
        families.setdefault(reading.architecture.id, []).append(reading)
    return [r for several in families.values() for r in _most(several, lambda r: len(r.paths))]


def _most(readings: Iterable[Reading], quality: Callable[[Reading], int]) -> list[Reading]:
    qualities = [(quality(reading), reading) for reading in readings]
    most = max((found for found, _ in qualities), default=0)
    return [reading for found, reading in qualities if found == most]


def _choose(best: list[Reading], fitting: str, onto: Onto | None, layout: Layout) -> list[Reading]:
    """The first of the equally good readings, and those of other families that change the same weights.

    Args:
        fitting: all the families that were, in words.

    Raises:
        ArchitectureError: another would patch other weights, or it may be a stranger's.
    """
    first = best[0]
    rivals = [r for r in best[1:] if r.architecture != first.architecture]
    if first.is_whole:  # has all blocks, of which a deeper family that has other names beside these would have a part
        rivals = [r for r in rivals if r.is_whole or not _doubt(r, onto)]
    targets = first.targets(layout) if rivals else set[str]()
    if any(r.targets(layout) != targets or _are_twins(r.architecture, first.architecture) for r in rivals):
        raise ArchitectureError(f"its modules are those of several families ({fitting})", Remedy.ARCHITECTURE)
    if why := _doubt(first, onto):
        raise ArchitectureError(f"its modules may be those of {fitting}, but {why}", Remedy.ARCHITECTURE)
    if first.is_whole or (onto is not None and first.architecture is onto.family):
        return [first, *rivals]
    return sorted([first, *rivals], key=lambda r: _ORDER.index(r.architecture))


def _are_twins(one: Architecture, other: Architecture) -> bool:
    return other.id in one.twins or one.id in other.twins


def _doubt(reading: Reading, onto: Onto | None) -> str:
    """What leaves open whether a file is for the reading's family, in general or of the model that has its modules."""
    if onto is not None and onto.has_all(reading):
        return doubt(reading, onto.depths(reading), of_model=True)
    return doubt(reading, reading.limits, of_model=False)


def _mixed(adapter_set: AdapterSet, chosen: Reading) -> dict[str, tuple[str, Layout]]:
    """Names that the reading lacks -> (path, layout) of the one module of the family that each can mean.

    Some files have a module under another layout's name too, or some dots as underscores.
    """
    family = chosen.architecture
    found: dict[str, tuple[str, Layout]] = {}
    for name, adapter in adapter_set.adapters.items():
        if name in chosen.paths or of_other_models(adapter_set, name):
            continue
        meant: dict[Layout, str] = {}
        for layout in (chosen.layout, *LAYOUTS):
            path = _resolved(family, name, layout, underscored=True)
            if path is not None and _fits(family, path, layout, adapter.flat_shape):
                meant[layout] = path
        places = {tuple(family.locate(parameter_of(path)[0], layout, "comfyui")) for layout, path in meant.items()}
        if len(places) == 1:
            layout, path = next(iter(meant.items()))
            found[name] = path, layout
    return found


def _resolved(family: Architecture, name: str, layout: Layout, *, underscored: bool) -> str | None:
    """The path of the module, or of its bias: by its whole name, or by what is left of it without a wrapper's."""
    module, parameter = parameter_of(name)
    whole = spelled(module, underscored=underscored)
    paths = (family.resolve(form, layout, underscored=underscored) for form in (whole, *unwrapped(whole)))
    path = next((path for path in paths if path is not None), None)
    return path + BIAS if path is not None and parameter == BIAS else path


def _fits(family: Architecture, path: str, layout: Layout, shape: tuple[int, int]) -> bool:
    return path.endswith(BIAS) or ANY in shape or family.fits(path, layout, shape)
