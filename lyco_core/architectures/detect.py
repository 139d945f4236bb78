"""Which model family, and whose module names: told from names and shapes alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping

from ..adapter_set import AdapterSet
from ..adapters import ANY
from ..errors import ArchitectureError, shorten
from ..formats import FORMATS
from ..layouts import BIAS, LAYOUTS, Layout, parameter_of
from .registry import ARCHITECTURES
from .table import Architecture, template_of

__all__ = ["identify", "recognise"]


@dataclasses.dataclass(frozen=True)
class _Reading:
    """A file's modules read as those of one family in one layout."""

    architecture: Architecture
    layout: Layout
    paths: Mapping[str, str]
    """Name as spelled -> dotted path, for the names that the family has."""
    fitting: int
    """How many of them have a shape that the family allows."""
    total: int
    """How many modules there are."""

    @property
    def depth(self) -> int:
        """2 if the blocks are as many as the largest model has, 1 if fewer, 0 if more."""
        deepest: dict[str, int] = {}
        for path in self.paths.values():
            template, number = template_of(path)
            if number:
                above = template.split(".{n}", 1)[0]
                deepest[above] = max(deepest.get(above, 0), int(number) + 1)
        limits = self.architecture.depths
        if any(count > limits.get(above, count) for above, count in deepest.items()):
            return 0
        return 2 if any(count == limits.get(above) for above, count in deepest.items()) else 1


def identify(
    adapter_set: AdapterSet,
    *,
    architecture: str | None = None,
    weights: Collection[str] | None = None,
    prefer: str | None = None,
    layout: Layout = "comfyui",
) -> AdapterSet:
    """The set with dotted module paths, its architecture and layout filled in.

    Names that the family does not have keep their spelling; a set of no known family comes back
    as it was.

    Args:
        architecture: the family's id, where a person says it.
        weights: module paths of ComfyUI's model, which decide between families whose names the
            file fits equally well.
        prefer: of families that fit equally well, the one to name: the model's, say.
        layout: where the adapters are to go; families that put them on the same weights there are
            no rivals.

    Raises:
        ArchitectureError: the family refuses the set's algorithms, or several fit equally well
            and would put the adapters on different weights.
    """
    if architecture is not None and architecture not in ARCHITECTURES:
        raise ArchitectureError(f"there is no architecture {architecture!r}; known are {', '.join(ARCHITECTURES)}")
    if adapter_set.format not in FORMATS:
        return adapter_set
    families = ARCHITECTURES.values() if architecture is None else (ARCHITECTURES[architecture],)
    best = _best(_readings(adapter_set, families))
    if not best and architecture is not None and adapter_set.adapters:
        names = shorten(list(adapter_set.prefixes.values()))
        raise ArchitectureError(f"is no adapter for {ARCHITECTURES[architecture].title}: its modules are {names}")
    if not best:
        return adapter_set
    hint = adapter_set.metadata.get("lyco_architecture")
    best.sort(key=lambda r: (r.architecture.id not in (prefer, hint), LAYOUTS.index(r.layout)))
    if FORMATS[adapter_set.format].underscored:  # Musubi's own names, if they are: no other layout is a rival
        best = [r for r in best if r.layout == best[0].layout]
    chosen = _choose(best, weights, layout, settled=hint == best[0].architecture.id)
    _refuse(chosen.architecture, adapter_set)
    return _renamed(adapter_set, chosen)


def _renamed(adapter_set: AdapterSet, chosen: _Reading) -> AdapterSet:
    rename: dict[str, str] = {}
    owners: dict[str, str] = {}
    for name, prefix in adapter_set.prefixes.items():
        path = rename[name] = chosen.paths.get(name, name)
        if owners.setdefault(path, prefix) != prefix:
            raise ArchitectureError(f"{prefix}: the same module is there twice, also as {owners[path]}")
    return dataclasses.replace(
        adapter_set,
        adapters={rename[name]: adapter for name, adapter in adapter_set.adapters.items()},
        prefixes={rename[name]: prefix for name, prefix in adapter_set.prefixes.items()},
        alpha_tensors={rename[name]: alpha for name, alpha in adapter_set.alpha_tensors.items()},
        architecture=chosen.architecture.id,
        layout=chosen.layout,
    )


def recognise(paths: Iterable[str]) -> tuple[Architecture, Layout] | None:
    """The family and layout whose module names at least half of a model's `paths` are, or None."""
    names = list(paths)
    readings: list[_Reading] = []
    for family in ARCHITECTURES.values():
        for layout in LAYOUTS:
            known = {n: n for n in names if family.resolve(n, layout, underscored=False)}
            readings.append(_Reading(family, layout, known, len(known), len(names)))
    best = _best(readings)
    return (best[0].architecture, best[0].layout) if best else None


def _readings(adapter_set: AdapterSet, families: Iterable[Architecture]) -> list[_Reading]:
    form = FORMATS[adapter_set.format]
    shapes = {
        name: adapter.flat_shape
        for name, adapter in adapter_set.adapters.items()
        if not adapter_set.prefixes[name].startswith(form.other_prefixes)
    }
    readings: list[_Reading] = []
    for family in families:
        for layout in LAYOUTS:
            resolved = ((name, _resolved(family, name, layout, form.underscored)) for name in shapes)
            paths = {name: path for name, path in resolved if path is not None}
            fitting = sum(_fits(family, path, layout, shapes[name]) for name, path in paths.items())
            readings.append(_Reading(family, layout, paths, fitting, len(shapes)))
    return readings


def _resolved(family: Architecture, name: str, layout: Layout, underscored: bool) -> str | None:
    """The path of the module, or of its bias."""
    module, parameter = parameter_of(name)
    path = family.resolve(module, layout, underscored=underscored)
    return path + BIAS if path is not None and parameter == BIAS else path


def _fits(family: Architecture, path: str, layout: Layout, shape: tuple[int, int]) -> bool:
    """Whether the family allows the shape; what an adapter leaves open, and biases, tell nothing."""
    return path.endswith(BIAS) or ANY in shape or family.fits(path, layout, shape)


def _best(readings: Iterable[_Reading]) -> list[_Reading]:
    """Those that explain most modules, half of them at least, and of those the ones whose depth fits best."""
    readings = [r for r in readings if r.paths and 2 * r.fitting >= r.total]
    most = max((r.fitting for r in readings), default=0)
    readings = [r for r in readings if r.fitting == most]
    depth = max((r.depth for r in readings), default=0)
    return [r for r in readings if r.depth == depth]


def _choose(best: list[_Reading], weights: Collection[str] | None, layout: Layout, *, settled: bool) -> _Reading:
    """The first of the equally good readings, unless another would patch other weights."""
    if weights is not None:
        best = [r for r in best if _targets(r, "comfyui") & set(weights)] or best
    first = _targets(best[0], layout)
    rivals = [r for r in best[1:] if r.architecture != best[0].architecture and _targets(r, layout) != first]
    if rivals and not settled:
        names = sorted({best[0].architecture.id, *(r.architecture.id for r in rivals)})
        raise ArchitectureError(
            f"its modules are those of {' and of '.join(names)}; say which with --architecture, or load it onto a model"
        )
    return best[0]


def _targets(reading: _Reading, layout: Layout) -> set[str]:
    locate = reading.architecture.locate
    modules = {parameter_of(path)[0] for path in reading.paths.values()}
    return {t.path for path in modules for t in locate(path, reading.layout, layout)}


def _refuse(architecture: Architecture, adapter_set: AdapterSet) -> None:
    if architecture.refused and adapter_set.algorithms.keys() - {"lora"}:
        raise ArchitectureError(f"{architecture.title}: {architecture.refused}")
