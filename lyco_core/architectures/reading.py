"""A file's modules, or a model's, as those of one family in one layout: what is counted of them."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Container, Mapping

from ..formats.grammar import unwrapped
from ..layouts import BIAS, LAYOUTS, Layout, parameter_of
from .table import Architecture
from .templates import split

__all__ = ["Kind", "Names", "Reading", "block_start", "forms_of", "read", "spelled"]

Names = Mapping[str, tuple[int, int] | None]
"""Name of a module as it is spelled -> (out, in), or None where that says nothing of the family."""

Kind = tuple[str, tuple[int, int]]
"""A path with `{n}` for its block's number, and (out, in) there: blocks are alike."""

_FEW = 8
"""So many blocks, the first of a model's, somebody may train; more of them are more likely all that another has."""

_TOY = 512
"""No model that people have is narrower: of one that is, a test's, only names, ratios and depths are held."""


@dataclasses.dataclass(frozen=True)
class Reading:
    """Modules read as those of one family in one layout."""

    architecture: Architecture
    layout: Layout
    paths: Mapping[str, str]
    """Name as spelled -> dotted path, for the names that the family has."""
    numbers: Mapping[str, set[str]]
    """Path with `{n}` for its block's number -> the numbers that are there; an empty one outside of blocks. A name may
    be that of a module's bias."""
    kinds: Mapping[Kind, list[str]]
    """The names of each kind, where shapes tell something."""
    blocks: Mapping[str, set[int]]
    """Start of a block's name in Musubi's layout -> the numbers of such blocks."""
    missing: tuple[str, ...]
    """Names that tell something, and are none of the family's in this layout."""
    total: int
    """How many names tell something."""

    @functools.cached_property
    def strange(self) -> tuple[str, ...]:
        """Names that tell something, and that the family has in no layout."""
        return tuple(name for name in self.missing if not _elsewhere(self.architecture, name))

    @functools.cached_property
    def widths(self) -> dict[float, str]:
        """Widths of the model by what the family fixes -> a name of a module that is so wide."""
        found: dict[float, str] = {}
        for (template, shape), names in self.kinds.items():
            width = self.architecture.width(template, self.layout, shape)
            if width is not None:
                found.setdefault(float(width), names[0])
        return found

    @functools.cached_property
    def is_toy(self) -> bool:
        """Whether the model is too narrow to be anybody's."""
        return bool(self.widths) and max(self.widths) < _TOY

    @functools.cached_property
    def misfits(self) -> tuple[Kind, ...]:
        """Of `kinds`, those that no model of the family has: it fixes another shape."""
        family, layout = self.architecture, self.layout
        odd = (kind for kind in self.kinds if not family.fits(kind[0], layout, kind[1]))
        return tuple(kind for kind in odd if not (self.is_toy and _is_of_size(family, layout, kind[0])))

    @property
    def fitting(self) -> int:
        """How many of the names that tell something the family has, with shapes that it allows."""
        return self.total - len(self.missing) - sum(len(self.kinds[kind]) for kind in self.misfits)

    @property
    def limits(self) -> Mapping[str, int]:
        """How many of each block the model has at most, by its width where that tells."""
        width = next(iter(self.widths), None) if len(self.widths) == 1 else None
        return self.architecture.depths if width is None else self.architecture.depths_at(width)

    @functools.cached_property
    def count(self) -> int:
        """How many modules the names mean."""
        return sum(map(len, self.numbers.values()))

    @property
    def has_last(self) -> bool:
        """Whether of every sort of its blocks the last that a model of the family has is there."""
        limits = self.limits
        last = [max(found) + 1 == limits[above] for above, found in self.blocks.items() if above in limits]
        return bool(last) and all(last)

    @property
    def is_whole(self) -> bool:
        """Whether its blocks are all that the largest model of the family has, of the sorts that are there."""
        limits = self.limits
        counted = [len(found) == limits[above] for above, found in self.blocks.items() if above in limits]
        return bool(counted) and all(counted)

    @property
    def has_more(self) -> bool:
        """Whether there is something outside of blocks: of a model, and no part of one."""
        return any("" in numbers for numbers in self.numbers.values())

    @property
    def runs_on(self) -> bool:
        """Whether its blocks, and they are many, are the first of their sort: all that some model has, it may be."""
        counts = {start: len(found) for start, found in self.blocks.items()}
        return max(counts.values(), default=0) > _FEW and all(
            count == max(self.blocks[start]) + 1 for start, count in counts.items()
        )

    @property
    def beyond(self) -> tuple[str, int] | None:
        """(Start of its name, number) of a block that no model of the family has."""
        last = ((above, max(found)) for above, found in self.blocks.items())
        return next(((above, n) for above, n in last if n >= self.limits.get(above, math.inf)), None)

    @functools.cached_property
    def whole_names(self) -> int:
        """How many names are the family's as they are spelled, with nothing before them that may be a wrapper's."""
        return sum(len(path) == len(name) for name, path in self.paths.items())

    @property
    def musubis_own(self) -> bool:
        """Whether these are names that Musubi writes: of blocks of a model that it trains."""
        training = self.architecture.training
        trained = training is not None and training.by_musubi and self.layout == "musubi"
        return trained and all(path.startswith(tuple(self.architecture.depths)) for path in self.paths.values())

    def targets(self, layout: Layout) -> set[str]:
        """The paths in `layout` of what its modules lie on."""
        routes = (
            (numbers, self.architecture.locate(path, self.layout, layout)) for path, numbers in self.numbers.items()
        )
        return {t.path.replace("{n}", number) for numbers, found in routes for t in found for number in numbers}


def read(family: Architecture, layout: Layout, names: Names, telling: Container[str], *, underscored: bool) -> Reading:
    """`names` as those of a family in a layout.

    Args:
        telling: those of the names that say something of the family; the others may be none of its.
        underscored: whether dots may be underscores.
    """
    known = family.spellings(layout, underscored=underscored)
    paths: dict[str, str] = {}
    numbers: dict[str, set[str]] = {}
    kinds: dict[Kind, list[str]] = {}
    blocks: dict[str, set[int]] = {}
    starts: dict[str, str | None] = {}
    missing: list[str] = []
    total = 0
    for name, shape in names.items():
        tells = name in telling
        total += tells
        forms, parameter = forms_of(name, underscored=underscored)
        template, number = split(forms[0], known)
        for form in forms[1:]:
            if template in known:
                break
            template, number = split(form, known)
        if template not in known or (not number and "{n}" in template):  # a file can say `{n}` itself
            missing += [name] * tells
            continue
        dotted = known[template]
        path = dotted.replace("{n}", number) if number else dotted
        paths[name] = path + BIAS if parameter == BIAS else path
        numbers.setdefault(dotted, set()).add(number)
        if tells and shape is not None and parameter != BIAS:
            kinds.setdefault((dotted, shape), []).append(name)
        if number:
            if dotted not in starts:
                starts[dotted] = block_start(family, dotted, layout)
            if (start := starts[dotted]) is not None:
                blocks.setdefault(start, set()).add(int(number))
    return Reading(family, layout, paths, numbers, kinds, blocks, tuple(missing), total)


@functools.lru_cache(maxsize=2**14)
def forms_of(name: str, *, underscored: bool) -> tuple[tuple[str, ...], str]:
    """(the spellings that a name may have in a family's table, with less and less before it; see `parameter_of`)."""
    module, parameter = parameter_of(name)
    whole = spelled(module, underscored=underscored)
    return (whole, *unwrapped(whole)), parameter


def spelled(module: str, *, underscored: bool) -> str:
    """A module's name as `Architecture.spellings` has it."""
    return module.replace(".", "_") if underscored else module


def block_start(family: Architecture, template: str, layout: Layout) -> str | None:
    """Start of the block's name in Musubi's layout; None where the block is not in it, or has no number there."""
    names = family.group_of(template, layout)[0].musubi
    return names[0].split(".{n}", 1)[0] if names and "{n}" in names[0] else None


def _elsewhere(family: Architecture, name: str) -> bool:
    """Whether the family has the name in some layout, dots or underscores: some files mix them."""
    forms, _ = forms_of(name, underscored=True)
    return any(family.resolve(form, layout, underscored=True) for layout in LAYOUTS for form in forms)


def _is_of_size(family: Architecture, layout: Layout, template: str) -> bool:
    """Whether the family fixes numbers of a module, rather than its proportions alone."""
    group = family.group_of(template, layout)[0]
    return bool(group.inputs or group.outputs)
