"""Which modules of an adapter file take part, and how strongly: by regular expressions over their names."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterable, Mapping
from typing import TypeVar

from .errors import SelectionError
from .patterns import PatternError, matches, require_patterns
from .text import shorten

__all__ = ["EVERYTHING", "Selection", "parse_block_strength", "weight_path"]

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Selection:
    """Patterns over module paths; each must match a whole path, as Musubi Tuner's do.

    A module has several names, see `names.py`: any of them may match, or be the pattern as it stands.
    """

    include: tuple[str, ...] = ()
    """Only these take part; all of them if there are none."""
    exclude: tuple[str, ...] = ()
    """These do not."""
    block_strengths: tuple[tuple[str, float], ...] = ()
    """Multipliers of the file's strength; of several that match, the last one counts."""

    @classmethod
    def of(
        cls,
        include: Iterable[str] = (),
        exclude: Iterable[str] = (),
        block_strengths: Iterable[tuple[str, float]] = (),
    ) -> Selection:
        """From the patterns' texts. Raises `SelectionError` for one that is no regular expression."""
        made = cls(tuple(include), tuple(exclude), tuple(block_strengths))
        try:
            require_patterns(made.patterns)
        except PatternError as error:
            raise SelectionError(str(error)) from None
        return made

    def __bool__(self) -> bool:
        return bool(self.include or self.exclude or self.block_strengths)

    @property
    def patterns(self) -> tuple[str, ...]:
        """The patterns of all three fields."""
        return (*self.include, *self.exclude, *(pattern for pattern, _ in self.block_strengths))

    def strengths(self, names: Mapping[T, Collection[str]]) -> dict[T, float]:
        """The multiplier of each of `names`; 0 for what does not take part.

        Args:
            names: anything -> what it goes by.

        Raises:
            SelectionError: a pattern takes too long.
        """
        return self._strengths(names, self._matched({name for several in names.values() for name in several}))

    def choose(self, names: Mapping[T, Collection[str]], others: Iterable[str] = ()) -> dict[T, float]:
        """What of `names` takes part -> its multiplier, without what is at 0.

        Args:
            names: anything -> what it goes by.
            others: names that a pattern may match too, of what has no place.

        Raises:
            SelectionError: a pattern matches nothing or takes too long, or nothing is left.
        """
        every = {*others, *(name for several in names.values() for name in several)}
        matched = self._matched(every)
        for pattern in self.patterns:
            if not matched[pattern]:
                modules = sorted({min(several, key=lambda name: (len(name), name)) for several in names.values()})
                raise SelectionError(
                    f"the pattern '{pattern}' matches no module; it must match a whole name, "
                    f"such as {shorten(modules or sorted(every))}; end it with .* to match what begins so"
                )
        strengths = self._strengths(names, matched)
        chosen = {item: strength for item, strength in strengths.items() if strength != 0}
        if strengths and not chosen:
            raise SelectionError("the patterns leave out every module; nothing would be changed")
        return chosen

    def _matched(self, names: Collection[str]) -> dict[str, frozenset[str]]:
        try:
            found = matches(self.patterns, names)
        except PatternError as error:
            raise SelectionError(str(error)) from None
        return {pattern: taken | ({pattern} & {*names}) for pattern, taken in found.items()}

    def _strengths(self, names: Mapping[T, Collection[str]], matched: Mapping[str, frozenset[str]]) -> dict[T, float]:
        def takes(pattern: str, several: Collection[str]) -> bool:
            return not matched[pattern].isdisjoint(several)

        def strength(several: Collection[str]) -> float:
            if self.include and not any(takes(pattern, several) for pattern in self.include):
                return 0.0
            if any(takes(pattern, several) for pattern in self.exclude):
                return 0.0
            return next((s for pattern, s in reversed(self.block_strengths) if takes(pattern, several)), 1.0)

        return {item: strength(several) for item, several in names.items()}

    def as_json(self) -> dict[str, object]:
        """What a merged file's metadata says of the selection; only what is set."""
        named = {
            "include": list(self.include),
            "exclude": list(self.exclude),
            "block_strengths": dict(self.block_strengths),
        }
        return {name: value for name, value in named.items() if value}


MOST_STRENGTH = 3e38
"""The largest strength: beyond it, float32 has infinity alone."""

EVERYTHING = Selection()
"""Every module, at the file's strength."""


def weight_path(key: str, prefix: str) -> str:
    """A weight's key without the model's prefix and `.weight`."""
    return key.removeprefix(prefix).removesuffix(".weight")


def parse_block_strength(text: str) -> tuple[str, float]:
    """(pattern, strength) of `PATTERN=STRENGTH`. Raises `SelectionError` for any other text."""
    pattern, _, number = text.rpartition("=")
    try:
        strength = float(number)
    except ValueError:
        strength = math.nan  # which is not within any bound
    if not pattern or not abs(strength) <= MOST_STRENGTH:
        raise SelectionError(rf"'{text}' is no block strength; expected PATTERN=NUMBER, e.g. 'double_blocks\..*=0.5'")
    return pattern, strength
