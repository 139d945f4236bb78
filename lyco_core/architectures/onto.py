"""The model that a file is put onto: what of the file, read as a family's, lies on its modules."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import cast

from ..formats.grammar import unwrapped
from ..layouts import Layout, parameter_of
from .reading import Kind, Reading, block_start, spelled
from .registry import ARCHITECTURES
from .table import Architecture

__all__ = ["ModelModules", "Onto", "with_shapes"]

ModelModules = Mapping[str, tuple[int, ...] | None]
"""Path of a model's module -> the shape of its weight, or None where that is not known."""


def with_shapes(modules: ModelModules | Iterable[str]) -> ModelModules:
    """A model's modules; where only their paths are known, without shapes."""
    return cast(ModelModules, modules) if isinstance(modules, Mapping) else dict.fromkeys(modules)


@dataclasses.dataclass(frozen=True)
class Onto:
    """The model that a file is put onto."""

    modules: ModelModules
    family: Architecture | None
    layout: Layout
    _homes: dict[int, tuple[Reading, int]] = dataclasses.field(default_factory=dict[int, "tuple[Reading, int]"])

    @classmethod
    def of(cls, modules: ModelModules | Collection[str], family: str | None, layout: Layout) -> Onto:
        """The model with `modules`, in `layout`, of a family where that is known."""
        return cls(with_shapes(modules), None if family is None else ARCHITECTURES[family], layout)

    def homes(self, reading: Reading) -> int:
        """How many of a reading's modules lie wholly on the model's, as large as they are."""
        if id(reading) not in self._homes:  # asked several times of a few readings
            self._homes[id(reading)] = reading, self._counted(reading)
        return self._homes[id(reading)][1]

    def has_all(self, reading: Reading) -> bool:
        """Whether everything that a file tells lies on the model's modules."""
        return not reading.strange and bool(reading.paths) and self.homes(reading) == reading.count

    def names_all(self, names: Iterable[str]) -> bool:
        """Whether the model itself has modules of all of a file's names."""
        modules = (spelled(parameter_of(name)[0], underscored=True) for name in names)
        return all(any(form in self._names for form in (name, *unwrapped(name))) for name in modules)

    def depths(self, reading: Reading) -> dict[str, int]:
        """Start of the name of a reading's block in Musubi's layout -> how many of such blocks the model has."""
        counts: dict[str, int] = {}
        for template in reading.numbers:
            start = block_start(reading.architecture, template, reading.layout) if "{n}" in template else None
            if start is not None and start not in counts:
                lies = self._lies(reading, template)
                counts[start] = next(n for n in itertools.count() if not lies(str(n)))
        return counts

    @functools.cached_property
    def _names(self) -> set[str]:
        return {spelled(path, underscored=True) for path in self.modules}

    def _counted(self, reading: Reading) -> int:
        outsized = (reading.paths[name] for kind in reading.kinds for name in self._outsized(reading, kind))
        other = {reading.architecture.template_of(parameter_of(path)[0], reading.layout) for path in outsized}
        count = 0
        for template, numbers in reading.numbers.items():
            lies = self._lies(reading, template)
            count += sum((template, number) not in other and lies(number) for number in numbers)
        return count

    def _lies(self, reading: Reading, template: str) -> Callable[[str], bool]:
        """Whether all that a module means is in the model, by its block's number: blocks are alike."""
        targets = [t.path for t in reading.architecture.locate(template, reading.layout, self.layout)]
        return lambda number: bool(targets) and all(path.replace("{n}", number) in self.modules for path in targets)

    def _outsized(self, reading: Reading, kind: Kind) -> list[str]:
        """The names of a kind, if the first of them lies on weights of other sizes."""
        (out, inputs), names = kind[1], reading.kinds[kind]
        for target in reading.architecture.locate(reading.paths[names[0]], reading.layout, self.layout, kind[1]):
            shape = self.modules.get(target.path)
            if shape is not None and (
                math.prod(shape[1:]) != inputs or out * _share(target.source) != shape[0] * _share(target.rows)
            ):
                return names
        return []


def _share(band: tuple[int, int, int]) -> float:
    start, stop, of = band
    return (stop - start) / of
