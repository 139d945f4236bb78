"""How large a file's changes are, block by block and by kind of module, for a page that turns them up and down."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TypedDict

from ..adapter_set import AdapterSet
from ..adapters import Additive
from ..architectures import identify
from ..blocks import LONGEST_NAME, MOST_CELLS, block_pattern, grouped_blocks
from ..errors import ArchitectureError
from ..layouts import BIAS
from ..placement import place
from ..text import clipped, one_line
from ..workers import workers
from .inner import size
from .modules import grouped, kind_of

__all__ = [
    "Norms",
    "Shares",
    "Strip",
    "Strips",
    "drawn",
    "drawn_shares",
    "measured",
    "paths_in",
    "pattern_names",
    "strips",
]

MOST_KINDS = 24
"""Kinds of modules that are named: the largest ones. Real files have a dozen or two."""


class Strip(TypedDict):
    """Blocks of one kind."""

    name: str
    """What their module paths begin with, or `other`; in one line."""
    pattern: tuple[str, str] | None
    """What a block strength of them has before and after their numbers; None where it cannot name them."""
    cells: list[tuple[int, int, float | None]]
    """(number of the block, modules of it, ‖ΔW‖ of these together) in ascending order; see `Strips.unmeasured`."""


class Strips(TypedDict):
    """All of a file, in plain types."""

    norm: float
    """‖ΔW‖ in the Frobenius norm, at strength 1, of all modules that are measured."""
    unmeasured: int
    """Modules whose change depends on the model's weights; a norm of nothing else is None."""
    blocks: list[Strip]
    kinds: list[tuple[str, int, float]]
    """(kind of module, how many are measured, ‖ΔW‖ of these together), the largest first."""


class Shares(TypedDict):
    """‖ΔW‖ / ‖W‖ of what `Strips` has, of the measured modules that have a place in a model; None where none has."""

    whole: float | None
    unplaced: int
    """Measured modules that the model has no weight for."""
    blocks: list[list[float | None]]
    """For each kind of block that of each cell."""
    kinds: list[float | None]


Norms = Mapping[str, float | None]
"""What the loaders' patterns may call a module -> ‖ΔW‖; None where that depends on the model's weights."""


def strips(raw: AdapterSet, progress: Callable[[], None] = lambda: None) -> Strips:
    """A file's changes, by blocks; see `measured`."""
    return drawn(measured(raw, progress))


def measured(raw: AdapterSet, progress: Callable[[], None] = lambda: None) -> Norms:
    """Measure a file's changes from its factors, where the algebra allows it; see `inner.size`.

    Args:
        raw: the file's adapters, with their numbers, not identified.
        progress: called after each module; what it raises ends it.

    Raises:
        AdapterError: two modules contradict each other, or a change is too large to be measured.
    """
    names = pattern_names(raw)
    norms: dict[str, float | None] = {}

    def norm_of(name: str) -> float | None:
        adapter = raw.adapters[names[name]]
        return size(adapter, name) if isinstance(adapter, Additive) else None

    with workers() as threads:
        for name, norm in zip(names, threads.each(norm_of, names), strict=True):
            norms[name] = norm
            progress()
    return norms


def drawn(norms: Norms) -> Strips:
    """Norms as a page draws them."""
    known = _known(norms)
    return Strips(
        norm=math.hypot(*known.values()),
        unmeasured=len(norms) - len(known),
        blocks=[_strip(kind, cells, norms) for kind, cells in grouped_blocks(norms).items()],
        kinds=[(_short(name), len(paths), _together(paths, known)) for name, paths in _kinds(known)],
    )


def drawn_shares(norms: Norms, whole: Mapping[str, float]) -> Shares:
    """Norms as shares of those of the model's weights, for what `drawn` has drawn of them.

    Args:
        whole: ‖W‖ of what each module changes, under the names of `norms`; see `of_model`.
    """
    known = _known(norms)
    both = {name: norm for name, norm in known.items() if name in whole}

    def share(names: Iterable[str]) -> float | None:
        there = [name for name in names if name in both]
        weights = _together(there, whole)
        return _together(there, both) / weights if weights else None

    return Shares(
        whole=share(both),
        unplaced=len(known) - len(both),
        blocks=[[share(paths) for _, paths in _cells(cells)] for cells in grouped_blocks(norms).values()],
        kinds=[share(paths) for _, paths in _kinds(known)],
    )


def pattern_names(raw: AdapterSet) -> Mapping[str, str]:
    """What the loaders' patterns may call each module that counts -> its path in `raw`.

    That is its path as its family has it; of a file of no family, or of one of several, its spelling in the file.
    """
    try:
        found = place(identify(raw)).adapter_set
    except ArchitectureError:
        found = raw
    raw_paths = paths_in(raw, found)
    return {
        path if found.architecture else prefix + BIAS * path.endswith(BIAS): raw_paths[path]
        for path, prefix in found.prefixes.items()
    }


def paths_in(raw: AdapterSet, found: AdapterSet) -> dict[str, str]:
    """Module path in `found`, which is `raw` identified, -> its path in `raw`."""
    paths = {(prefix, path.endswith(BIAS)): path for path, prefix in raw.prefixes.items()}
    return {
        path: paths[prefix, path.endswith(BIAS)] for path, prefix in found.prefixes.items()
    }  # a bias has its module's


def _strip(kind: str, cells: Mapping[int, list[str]], norms: Norms) -> Strip:
    known = _known(norms)
    found = [(number, paths, [path for path in paths if path in known]) for number, paths in _cells(cells)]
    return Strip(
        name=_short(kind),
        pattern=block_pattern(kind, cells),
        cells=[(number, len(paths), _together(of, known) if of else None) for number, paths, of in found],
    )


def _cells(cells: Mapping[int, list[str]]) -> list[tuple[int, list[str]]]:
    return sorted(cells.items())[:MOST_CELLS]


def _kinds(norms: Mapping[str, float]) -> list[tuple[str, list[str]]]:
    """Kind of module -> its modules, the largest change first."""
    groups = grouped(norms, map(kind_of, norms))
    return sorted(groups.items(), key=lambda kind: -_together(kind[1], norms))[:MOST_KINDS]


def _known(norms: Norms) -> dict[str, float]:
    return {name: norm for name, norm in norms.items() if norm is not None}


def _together(names: Iterable[str], norms: Mapping[str, float]) -> float:
    return math.hypot(*(norms[name] for name in names))


def _short(name: str) -> str:
    return one_line(clipped(name, LONGEST_NAME))
