"""Which model family a file is for, and whose module names it has: found from names and shapes alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator

from ..adapter_set import AdapterSet
from ..adapters import Full
from ..errors import ArchitectureError, Remedy
from ..layouts import BIAS, LAYOUTS, Layout, parameter_of
from ..text import shorten
from .reading import Reading, tells_nothing
from .registry import ARCHITECTURES
from .renaming import with_paths
from .table import Architecture
from .templates import templates_of

__all__ = ["identify", "recognise"]


def identify(
    adapter_set: AdapterSet,
    *,
    architecture: str | None = None,
    model_modules: Collection[str] | None = None,
    prefer: str | None = None,
    layout: Layout = "comfyui",
) -> AdapterSet:
    """The set with dotted module paths, its architecture and layout filled in.

    Names that the family does not have keep their spelling; a set of no known family comes back
    as it was.

    Args:
        architecture: the family's id, where a person says it.
        model_modules: module paths of the model, in `layout`, which decide between families whose names the
            file fits equally well.
        prefer: of families that fit equally well, the one to name: the model's, say.
        layout: where the adapters are to go; families that put them on the same weights there are
            no rivals.

    Raises:
        ArchitectureError: several families fit equally well and would put the adapters on different weights.
    """
    if architecture is not None and architecture not in ARCHITECTURES:
        raise ArchitectureError(f"there is no architecture {architecture!r}; known are {', '.join(ARCHITECTURES)}")
    if adapter_set.format is None:
        return adapter_set
    families = ARCHITECTURES.values() if architecture is None else (ARCHITECTURES[architecture],)
    underscored = adapter_set.format.underscored
    best = _best(_readings(adapter_set, families, underscored=underscored), model_modules, layout)
    if not best and not underscored:  # some underscores may be dots
        best = _best(_readings(adapter_set, families, underscored=True), model_modules, layout)
    if not best and architecture is not None and adapter_set.adapters:
        names = shorten(list(adapter_set.prefixes.values()))
        raise ArchitectureError(f"is no adapter for {ARCHITECTURES[architecture].title}: its modules are {names}")
    if not best:
        return adapter_set
    hint = adapter_set.metadata.get("lyco_architecture")
    best.sort(key=lambda r: (r.architecture.id not in (prefer, hint), LAYOUTS.index(r.layout)))
    if adapter_set.format.id == "musubi" and any(r.musubis_own for r in best):  # then no other names are rivals
        best = [r for r in best if r.musubis_own or r.architecture.id in (prefer, hint)]
    chosen = _choose(best, layout, settled=hint == best[0].architecture.id)
    mixed = _mixed(adapter_set, chosen)
    names = {**chosen.paths, **{name: path for name, (path, _) in mixed.items()}}
    others: dict[str, Layout] = {
        parameter_of(path)[0]: layout for path, layout in mixed.values() if layout != chosen.layout
    }
    return with_paths(adapter_set, names, chosen.architecture, chosen.layout, others)


def _mixed(adapter_set: AdapterSet, chosen: Reading) -> dict[str, tuple[str, Layout]]:
    """Names that the reading lacks -> (path, layout) of the one module of the family that each can mean.

    Some files have a module under another layout's name too, or some dots as underscores.
    """
    family = chosen.architecture
    found: dict[str, tuple[str, Layout]] = {}
    for name, adapter in adapter_set.adapters.items():
        if name in chosen.paths or _of_other_models(adapter_set, name):
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


def recognise(paths: Iterable[str]) -> tuple[Architecture, Layout] | None:
    """The family and layout whose module names at least half of a model's `paths` are, or None."""
    names = list(paths)
    readings: list[Reading] = []
    for family, layout in _candidates(names, ARCHITECTURES.values(), underscored=False):
        known = {n: n for n in names if family.resolve(n, layout, underscored=False)}
        readings.append(Reading(family, layout, known, {}, len(names)))
    best = _most(readings, lambda r: len(r.paths))
    best = _most(best, lambda r: r.depth)
    return (best[0].architecture, best[0].layout) if best else None


def _readings(adapter_set: AdapterSet, families: Iterable[Architecture], *, underscored: bool) -> list[Reading]:
    shapes = {
        name: adapter.flat_shape
        for name, adapter in adapter_set.adapters.items()
        if not _of_other_models(adapter_set, name)
    }
    # Differences of norms and tables, which families do not list, say nothing where there is more.
    telling = {n: s for n, s in shapes.items() if not isinstance(adapter_set.adapters[n], Full)} or shapes
    readings: list[Reading] = []
    for family, layout in _candidates(telling, families, underscored=underscored):
        resolved = ((name, _resolved(family, name, layout, underscored=underscored)) for name in shapes)
        paths = {name: path for name, path in resolved if path is not None}
        fitting = {p: telling[n] for n, p in paths.items() if n in telling and _fits(family, p, layout, telling[n])}
        readings.append(Reading(family, layout, paths, fitting, len(telling)))
    return readings


def _of_other_models(adapter_set: AdapterSet, name: str) -> bool:
    """Whether a module's spelling says that it is a text encoder's."""
    return adapter_set.format is not None and adapter_set.prefixes[name].startswith(adapter_set.format.other_prefixes)


def _candidates(
    names: Collection[str], families: Iterable[Architecture], *, underscored: bool
) -> Iterator[tuple[Architecture, Layout]]:
    """The families and layouts that have at least half of `names`; blocks are counted, not gone through."""
    plain = {_spelled(parameter_of(name)[0], underscored=underscored) for name in names}
    numbered = Counter(template for name in plain for template, _ in templates_of(name))
    for family in families:
        for layout in LAYOUTS:
            known = family.spellings(layout, underscored=underscored)
            count = len(known.keys() & plain) + sum(numbered[template] for template in numbered.keys() & known.keys())
            if count and 2 * count >= len(plain):
                yield family, layout


def _spelled(module: str, *, underscored: bool) -> str:
    return module.replace(".", "_") if underscored else module


def _resolved(family: Architecture, name: str, layout: Layout, *, underscored: bool) -> str | None:
    """The path of the module, or of its bias."""
    module, parameter = parameter_of(name)
    path = family.resolve(_spelled(module, underscored=underscored), layout, underscored=underscored)
    return path + BIAS if path is not None and parameter == BIAS else path


def _fits(family: Architecture, path: str, layout: Layout, shape: tuple[int, int]) -> bool:
    return tells_nothing(path, shape) or family.fits(path, layout, shape)


def _best(readings: Iterable[Reading], model_modules: Collection[str] | None, layout: Layout) -> list[Reading]:
    """The readings that explain most modules, half of them at least.

    Of those, the ones that put most of them on the model's own; then those of a model that there is, if any.
    """
    best = [r for r in readings if r.paths and 2 * len(r.fitting) >= r.total]
    best = _most(best, lambda r: len(r.fitting))
    if model_modules is not None:
        best = _most(best, lambda r: r.homes(model_modules, layout))
    best = _most(best, lambda r: min(r.depth, 1))
    if any(r.known_width for r in best):
        best = [r for r in best if r.known_width is not False]
    return _most(best, lambda r: r.depth)


def _most(readings: list[Reading], quality: Callable[[Reading], int]) -> list[Reading]:
    if len(readings) < 2:
        return readings
    qualities = [quality(r) for r in readings]
    return [r for r, found in zip(readings, qualities, strict=True) if found == max(qualities)]


def _choose(best: list[Reading], layout: Layout, *, settled: bool) -> Reading:
    """The first of the equally good readings, unless another would patch other weights."""
    first = _targets(best[0], layout)
    rivals = [r for r in best[1:] if r.architecture != best[0].architecture and _targets(r, layout) != first]
    if rivals and not settled:
        names = sorted({r.architecture.id for r in best})
        raise ArchitectureError(f"its modules are those of {' and of '.join(names)}", Remedy.ARCHITECTURE)
    return best[0]


def _targets(reading: Reading, layout: Layout) -> set[str]:
    locate = reading.architecture.locate
    return {t.path for path in reading.modules for t in locate(path, reading.layout, layout)}
