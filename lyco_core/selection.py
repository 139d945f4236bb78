"""Which modules of an adapter file take part, and how strongly: by regular expressions over their names."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Collection, Iterable, Mapping
from typing import TypeVar

from .errors import SelectionError, shorten
from .placement import Placed, Placement

__all__ = ["EVERYTHING", "Selection", "names_of", "parse_block_strength", "wanted", "weight_path"]

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Selection:
    """Patterns over module paths; each must match a whole path, as Musubi Tuner's do.

    A module is known by its path in the file and by its weight's path in the model, without
    prefix and `.weight`: either may match.
    """

    include: tuple[re.Pattern[str], ...] = ()
    """Only these take part; all of them if there are none."""
    exclude: tuple[re.Pattern[str], ...] = ()
    """These do not."""
    block_strengths: tuple[tuple[re.Pattern[str], float], ...] = ()
    """Multipliers of the file's strength; of several that match, the last one counts."""

    @classmethod
    def of(
        cls,
        include: Iterable[str] = (),
        exclude: Iterable[str] = (),
        block_strengths: Iterable[tuple[str, float]] = (),
    ) -> Selection:
        """From the patterns' texts. Raises `SelectionError` for one that is no regular expression."""
        return cls(
            tuple(map(_compiled, include)),
            tuple(map(_compiled, exclude)),
            tuple((_compiled(text), strength) for text, strength in block_strengths),
        )

    def __bool__(self) -> bool:
        return bool(self.include or self.exclude or self.block_strengths)

    @property
    def patterns(self) -> tuple[re.Pattern[str], ...]:
        """All of them."""
        return (*self.include, *self.exclude, *(pattern for pattern, _ in self.block_strengths))

    def strength(self, *names: str) -> float:
        """The multiplier of a module that goes by `names`; 0 if it does not take part."""
        if self.include and not _any(self.include, names):
            return 0.0
        if _any(self.exclude, names):
            return 0.0
        return next((s for pattern, s in reversed(self.block_strengths) if _any((pattern,), names)), 1.0)

    def choose(self, names: Mapping[T, Collection[str]], others: Iterable[str] = ()) -> dict[T, float]:
        """What of `names` takes part -> its multiplier, without what is at 0.

        Args:
            names: anything -> what it goes by.
            others: names that a pattern may match too, of what has no place.

        Raises:
            SelectionError: a pattern matches nothing, or nothing is left.
        """
        self._require_use({*others, *(name for several in names.values() for name in several)})
        strengths = {item: self.strength(*several) for item, several in names.items()}
        chosen = {item: strength for item, strength in strengths.items() if strength != 0}
        if strengths and not chosen:
            raise SelectionError("the patterns leave out every module; nothing would be changed")
        return chosen

    def _require_use(self, names: Collection[str]) -> None:
        for pattern in self.patterns:
            if not any(pattern.fullmatch(name) for name in names):
                raise SelectionError(
                    f"the pattern {pattern.pattern!r} matches no module; it must match a whole name, "
                    f"such as {shorten(sorted(names))}; end it with .* to match what begins so"
                )

    def as_json(self) -> dict[str, object]:
        """What a merged file's metadata says of it; only what is set."""
        named = {
            "include": [p.pattern for p in self.include],
            "exclude": [p.pattern for p in self.exclude],
            "block_strengths": {p.pattern: s for p, s in self.block_strengths},
        }
        return {name: value for name, value in named.items() if value}


EVERYTHING = Selection()
"""Every module, at the file's strength."""


def weight_path(key: str, prefix: str) -> str:
    """A weight's key without the model's prefix and `.weight`."""
    return key.removeprefix(prefix).removesuffix(".weight")


def names_of(placed: Placed, prefix: str) -> tuple[str, str]:
    """What a module goes by: its path in the file, and its weight's in a model whose keys begin with `prefix`."""
    return placed.module_path, weight_path(placed.key, prefix)


def wanted(placement: Placement, selection: Selection, prefix: str) -> Placement:
    """Without what has no place, or does not fit, where it takes no part anyway."""
    names = {path: (path,) for path in placement.homeless}
    names |= {m.module_path: (m.module_path, weight_path(m.key, prefix)) for m in placement.misfits}
    return placement.without({path for path, several in names.items() if selection.strength(*several) == 0})


def parse_block_strength(text: str) -> tuple[str, float]:
    """`PATTERN=STRENGTH` -> both. Raises `SelectionError` if it is not that."""
    pattern, equals, number = text.rpartition("=")
    try:
        strength = float(number)
    except ValueError:
        strength = math.nan
    if not equals or not pattern or not math.isfinite(strength):
        raise SelectionError(rf"{text!r} is no block strength; expected PATTERN=NUMBER, e.g. 'double_blocks\..*=0.5'")
    return pattern, strength


def _compiled(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise SelectionError(f"{text!r} is no regular expression: {error}") from None


def _any(patterns: Iterable[re.Pattern[str]], names: Iterable[str]) -> bool:
    return any(pattern.fullmatch(name) for pattern in patterns for name in names)
