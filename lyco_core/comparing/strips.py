"""How large a file's changes are, block by block and by kind of module, for a page that turns them up and down."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
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

__all__ = ["Strip", "Strips", "pattern_names", "strips"]

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


def strips(raw: AdapterSet, progress: Callable[[], None] = lambda: None) -> Strips:
    """Measure a file's changes from its factors, where the algebra allows it; see `inner.size`.

    Args:
        raw: the file's adapters, with their numbers, not identified.
        progress: called after each module; what it raises ends it.

    Raises:
        AdapterError: two modules contradict each other, or a change is too large to be measured.
    """
    names = pattern_names(raw)
    norms: dict[str, float | None] = {}

    def measured(name: str) -> float | None:
        adapter = raw.adapters[names[name]]
        return size(adapter, name) if isinstance(adapter, Additive) else None

    with workers() as threads:
        for name, norm in zip(names, threads.each(measured, names), strict=True):
            norms[name] = norm
            progress()
    known = {name: norm for name, norm in norms.items() if norm is not None}
    return Strips(
        norm=math.hypot(*known.values()),
        unmeasured=len(norms) - len(known),
        blocks=[_strip(kind, cells, norms) for kind, cells in grouped_blocks(norms).items()],
        kinds=_by_kind(known),
    )


def pattern_names(raw: AdapterSet) -> Mapping[str, str]:
    """What the loaders' patterns may call each module that counts -> its path in `raw`.

    That is its path as its family has it; of a file of no family, or of one of several, its spelling in the file.
    """
    paths = {(prefix, path.endswith(BIAS)): path for path, prefix in raw.prefixes.items()}
    try:
        found = place(identify(raw)).adapter_set
    except ArchitectureError:
        found = raw
    named: dict[str, str] = {}
    for path, prefix in found.prefixes.items():
        bias = path.endswith(BIAS)  # which has its module's prefix
        named[path if found.architecture else prefix + BIAS * bias] = paths[prefix, bias]
    return named


def _strip(kind: str, cells: Mapping[int, list[str]], norms: Mapping[str, float | None]) -> Strip:
    return Strip(
        name=one_line(clipped(kind, LONGEST_NAME)),
        pattern=block_pattern(kind, cells),
        cells=[
            (number, len(paths), math.hypot(*known) if (known := _known(paths, norms)) else None)
            for number, paths in sorted(cells.items())[:MOST_CELLS]
        ],
    )


def _known(paths: list[str], norms: Mapping[str, float | None]) -> list[float]:
    return [norm for path in paths if (norm := norms[path]) is not None]


def _by_kind(norms: Mapping[str, float]) -> list[tuple[str, int, float]]:
    groups = grouped(norms.values(), map(kind_of, norms))
    found = [(one_line(clipped(name, LONGEST_NAME)), len(of), math.hypot(*of)) for name, of in groups.items()]
    return sorted(found, key=lambda kind: -kind[2])[:MOST_KINDS]
