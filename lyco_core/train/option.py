"""Options as data: what each may be, its default, and what it does in words.

The node's widgets, the configuration's keys and the checks all come from these fields.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from ..errors import TrainError

__all__ = ["Choice", "Number", "Options", "Rule", "Text", "Texts", "Truth", "Whole", "option"]


@dataclasses.dataclass(frozen=True)
class Whole:
    """A whole number of at least `least`, and not `but`."""

    least: int
    but: int | None = None

    @property
    def expected(self) -> str:
        """In words."""
        but = "" if self.but is None else f" but {self.but}"
        return f"a whole number{but} of at least {self.least}"

    def holds(self, value: object) -> bool:
        """Whether `value` is one."""
        if not isinstance(value, int) or isinstance(value, bool):
            return False
        return value >= self.least and value != self.but


@dataclasses.dataclass(frozen=True)
class Number:
    """A finite number from `least` to `most`, which is left out if `open`."""

    least: float = 0.0
    most: float = math.inf
    open: bool = False

    @property
    def expected(self) -> str:
        """In words."""
        most = "" if math.isinf(self.most) else f" and {'less than' if self.open else 'at most'} {self.most:g}"
        least = "" if math.isinf(self.least) else f" of at least {self.least:g}"
        return f"a finite number{least}{most}"

    def holds(self, value: object) -> bool:
        """Whether `value` is one."""
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
            return False
        return self.least <= value <= self.most and not (self.open and value == self.most)


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of some names."""

    values: tuple[str, ...]

    @property
    def expected(self) -> str:
        """In words."""
        return f"one of {', '.join(self.values)}"

    def holds(self, value: object) -> bool:
        """Whether `value` is one."""
        return value in self.values


@dataclasses.dataclass(frozen=True)
class Truth:
    """True or false."""

    expected = "true or false"

    def holds(self, value: object) -> bool:
        """Whether `value` is one."""
        return isinstance(value, bool)


@dataclasses.dataclass(frozen=True)
class Text:
    """Any text."""

    expected = "a text"

    def holds(self, value: object) -> bool:
        """Whether `value` is one."""
        return isinstance(value, str)


@dataclasses.dataclass(frozen=True)
class Texts:
    """A list of texts."""

    expected = "a list of texts"

    def holds(self, value: object) -> bool:
        """Whether `value` is one."""
        return isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value)  # pyright: ignore[reportUnknownVariableType]


Rule = Whole | Number | Choice | Truth | Text | Texts


def option(default: Any, rule: Rule, told: str, *, rare: bool = True) -> Any:  # noqa: ANN401 - the field's own type
    """A field of `Options`.

    Args:
        told: what it does, for a tooltip and the help page.
        rare: whether most people never touch it.
    """
    return dataclasses.field(default=default, metadata={"rule": rule, "told": told, "rare": rare})


@dataclasses.dataclass(frozen=True)
class Options:
    """Options that hold their rules. Raises `TrainError` for one that does not."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if rule := field.metadata.get("rule"):
                value = getattr(self, field.name)
                if not rule.holds(value):
                    raise TrainError(f"{field.name} is {value!r}, expected {rule.expected}")
                object.__setattr__(self, field.name, _kept(rule, value))


def _kept(rule: Rule, value: Any) -> Any:  # noqa: ANN401
    """`value` in the type that the option always has."""
    if isinstance(rule, Texts):
        return tuple(value)
    return float(value) if isinstance(rule, Number) else value
