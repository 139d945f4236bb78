"""The names of a file or of a model, and the families that they may be of."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection, Iterable, Iterator

from ..adapter_set import AdapterSet
from ..adapters import ANY, Full
from ..formats.grammar import is_text_encoders
from ..layouts import LAYOUTS, Layout
from .reading import Names, Reading, forms_of, read
from .table import Architecture
from .templates import templates_of

__all__ = ["AdapterNames", "candidates", "of_other_models"]


@dataclasses.dataclass(frozen=True)
class AdapterNames:
    """The modules of a file as it spells them."""

    shapes: Names
    telling: Collection[str]
    """Those that say something: differences of norms and tables, which families do not list, do not where there is
    more."""
    underscored: tuple[bool, ...]
    """Whether dots are underscores; both where some may be."""

    @classmethod
    def of(cls, adapter_set: AdapterSet) -> AdapterNames:
        """The names of a set whose format is known, but for those of text encoders."""
        adapters = {name: a for name, a in adapter_set.adapters.items() if not of_other_models(adapter_set, name)}
        shapes = {name: None if ANY in adapter.flat_shape else adapter.flat_shape for name, adapter in adapters.items()}
        telling = {name for name, adapter in adapters.items() if not isinstance(adapter, Full)} or shapes.keys()
        underscored = adapter_set.format is not None and adapter_set.format.underscored
        return cls(shapes, telling, (True,) if underscored else (False, True))

    def readings(self, families: Iterable[Architecture], *, underscored: bool) -> Iterator[tuple[int, Reading]]:
        """(how many names it has at most, the file as one of each of `families` that has half), the most first."""
        for count, family, layout in candidates(self.telling, families, underscored=underscored):
            yield count, read(family, layout, self.shapes, self.telling, underscored=underscored)


def of_other_models(adapter_set: AdapterSet, name: str) -> bool:
    """Whether a module's spelling says that it is a text encoder's."""
    return is_text_encoders(adapter_set.prefixes[name])


def candidates(
    names: Collection[str], families: Iterable[Architecture], *, underscored: bool
) -> list[tuple[int, Architecture, Layout]]:
    """(how many of `names` they have at most, family, layout) of those that have at least half, the most first.

    Blocks are counted, not gone through.
    """
    plain = Counter(form for name in names for form in forms_of(name, underscored=underscored)[0])
    numbered: Counter[str] = Counter()
    for name, count in plain.items():
        for template, _ in templates_of(name):
            numbered[template] += count
    found: list[tuple[int, Architecture, Layout]] = []
    for family in families:
        for layout in LAYOUTS:
            known = family.spellings(layout, underscored=underscored).keys()
            count = sum(counts[name] for counts in (plain, numbered) for name in counts.keys() & known)
            if count and 2 * count >= len(names):
                found.append((count, family, layout))
    return sorted(found, key=lambda counted: -counted[0])
