"""A file's modules as those of one family in one layout: how well they fit."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Collection, Mapping

from ..adapters import ANY
from ..layouts import BIAS, Layout, parameter_of
from .table import Architecture

__all__ = ["Reading", "tells_nothing"]


@dataclasses.dataclass(frozen=True)
class Reading:
    """A file's modules read as those of one family in one layout."""

    architecture: Architecture
    layout: Layout
    paths: Mapping[str, str]
    """Name as spelled -> dotted path, for the names that the family has."""
    fitting: Mapping[str, tuple[int, int]]
    """Path -> (out, in) of those of them whose shape the family allows."""
    total: int
    """How many modules there are."""

    @functools.cached_property
    def known_width(self) -> bool | None:
        """Whether one of them has the width of a model that there is; None where no shape tells a width."""
        sized = ((path, shape) for path, shape in self.fitting.items() if not tells_nothing(path, shape))
        kinds = {(self.architecture.template_of(path, self.layout)[0], shape) for path, shape in sized}
        found = {self.architecture.width(template, self.layout, shape) for template, shape in kinds} - {None}
        return bool(found & set(self.architecture.widths)) if found else None

    @functools.cached_property
    def modules(self) -> set[str]:
        """The modules that the names mean; a name may be that of a module's bias."""
        return {parameter_of(path)[0] for path in self.paths.values()}

    @functools.cached_property
    def depth(self) -> int:
        """2 if the blocks are all that the largest model has, 1 if it could have them, 0 if one is too many."""
        blocks: dict[str, set[int]] = {}
        for path in self.modules:
            template, number = self.architecture.template_of(path, self.layout)
            names = self.architecture.group_of(template, self.layout)[0].musubi
            if names and "{n}" in names[0]:
                blocks.setdefault(names[0].split(".{n}", 1)[0], set()).add(int(number))
        limits = self.architecture.depths
        if any(max(found) >= limits.get(above, math.inf) for above, found in blocks.items()):
            return 0
        return 2 if any(len(found) == limits.get(above) for above, found in blocks.items()) else 1

    @functools.cached_property
    def whole_names(self) -> int:
        """How many names are the family's as they are spelled, with nothing before them that may be a wrapper's."""
        return sum(len(path) == len(name) for name, path in self.paths.items())

    @property
    def musubis_own(self) -> bool:
        """Whether these are names that Musubi writes: of blocks of a model that it trains."""
        trained = self.architecture.training is not None and self.layout == "musubi"
        return trained and all(path.startswith(tuple(self.architecture.depths)) for path in self.paths.values())

    def homes(self, model_modules: Collection[str], layout: Layout) -> int:
        """How many of its modules lie wholly on those of a model with the names of `layout`."""
        located = (self.architecture.locate(path, self.layout, layout) for path in self.modules)
        return sum(bool(targets) and all(target.path in model_modules for target in targets) for targets in located)


def tells_nothing(path: str, shape: tuple[int, int]) -> bool:
    """Whether the shape is a bias's, or one that an adapter leaves open."""
    return path.endswith(BIAS) or ANY in shape
