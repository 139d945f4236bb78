"""What an option may be, how its value is read from `--network_args`, and both in words."""

from __future__ import annotations

import ast
import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, cast

__all__ = ["Choice", "FileName", "Number", "Pairs", "Prompts", "Rule", "Text", "Texts", "Truth", "Whole", "WholeOrAuto"]


@dataclasses.dataclass(frozen=True)
class Whole:
    """A whole number of at least `least`, and not `but`."""

    least: int
    but: int | None = None

    @property
    def expected(self) -> str:
        """The values that are allowed, in words."""
        but = "" if self.but is None else f" but {self.but}"
        return f"a whole number{but} of at least {self.least}"

    def holds(self, value: object) -> bool:
        """Whether `value` is allowed."""
        if not isinstance(value, int) or isinstance(value, bool):
            return False
        return value >= self.least and value != self.but

    def read(self, text: str) -> int:
        """The value of a text in `--network_args`. Raises `ValueError` if it has none."""
        return _read(int, text, "a whole number")


@dataclasses.dataclass(frozen=True)
class WholeOrAuto:
    """A whole number of at least 0, also as a text, or `auto`."""

    expected = "auto or a whole number of at least 0"

    def holds(self, value: object) -> bool:
        """Whether `value` is allowed."""
        if isinstance(value, str):
            return value == "auto" or value.isdecimal()
        return Whole(0).holds(value)

    def read(self, text: str) -> str:
        """The value of a text in `--network_args`."""
        return text


@dataclasses.dataclass(frozen=True)
class Number:
    """A finite number from `least` to `most`, which is left out if `open`."""

    least: float = 0.0
    most: float = math.inf
    open: bool = False

    @property
    def expected(self) -> str:
        """The values that are allowed, in words."""
        most = "" if math.isinf(self.most) else f" and {'less than' if self.open else 'at most'} {self.most:g}"
        least = "" if math.isinf(self.least) else f" of at least {self.least:g}"
        return f"a finite number{least}{most}"

    def holds(self, value: object) -> bool:
        """Whether `value` is allowed."""
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
            return False
        return self.least <= value <= self.most and not (self.open and value == self.most)

    def read(self, text: str) -> float:
        """The value of a text in `--network_args`. Raises `ValueError` if it has none."""
        return _read(float, text, "a number")


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of the names in `values`."""

    values: tuple[str, ...]

    @property
    def expected(self) -> str:
        """The values that are allowed, in words."""
        return f"one of {', '.join(self.values)}"

    def holds(self, value: object) -> bool:
        """Whether `value` is allowed."""
        return value in self.values

    def read(self, text: str) -> str:
        """The value of a text in `--network_args`."""
        return text


@dataclasses.dataclass(frozen=True)
class Truth:
    """True or false."""

    expected = "true or false"

    def holds(self, value: object) -> bool:
        """Whether `value` is allowed."""
        return isinstance(value, bool)

    def read(self, text: str) -> bool:
        """The value of a text in `--network_args`. Raises `ValueError` if it has none."""
        return _read({"true": True, "false": False}.__getitem__, text.lower(), "True or False")


@dataclasses.dataclass(frozen=True)
class Text:
    """Any text."""

    expected = "a text"

    def holds(self, value: object) -> bool:
        """Whether `value` is allowed."""
        return isinstance(value, str)

    def read(self, text: str) -> str:
        """The value of a text in `--network_args`."""
        return text


@dataclasses.dataclass(frozen=True)
class Texts:
    """A list of texts."""

    expected = "a list of texts"

    def holds(self, value: object) -> bool:
        """Whether `value` is allowed."""
        return isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value)  # pyright: ignore[reportUnknownVariableType]

    def read(self, text: str) -> tuple[str, ...]:
        """The value of a text in `--network_args`. Raises `ValueError` if it has none."""
        return _read(_list, text, "a list of texts, such as [r'.*ffn.*']")


@dataclasses.dataclass(frozen=True)
class Pairs(Texts):
    """Texts of a pattern and a number: PATTERN=NUMBER."""

    number: Whole | Number

    @property
    def expected(self) -> str:
        """The values that are allowed, in words."""
        return f"a list of PATTERN=NUMBER with {self.number.expected}, such as ['.*attn.*=8']"

    def holds(self, value: object) -> bool:
        """Whether `value` is allowed."""
        if not super().holds(value):
            return False
        try:
            return all(self.number.holds(number) for _, number in self.split(cast(Sequence[str], value)))
        except ValueError:
            return False

    def read(self, text: str) -> tuple[str, ...]:
        """The value of a text in `--network_args`: a list, or, as in sd-scripts, pairs with commas between them."""
        return super().read(text) if text.lstrip().startswith("[") else tuple(_pairs(text))

    def split(self, pairs: Sequence[str]) -> list[tuple[str, float]]:
        """(pattern, number) of each. Raises `ValueError` for a text that is no pair."""
        parts = [pair.rpartition("=") for pair in pairs]
        if any(not pattern for pattern, _, _ in parts):
            raise ValueError("expected PATTERN=NUMBER")
        return [(pattern.strip(), self.number.read(number)) for pattern, _, number in parts]


def _pairs(text: str) -> list[str]:
    return [pair.strip() for pair in text.split(",") if pair.strip()]


@dataclasses.dataclass(frozen=True)
class Prompts(Texts):
    """The name of a file of prompts, or a list of such."""

    expected = "the name of a file of prompts, or a list of them"

    def holds(self, value: object) -> bool:
        """Whether `value` is allowed."""
        listed = isinstance(value, (list, tuple)) and all(isinstance(v, (str, dict)) for v in value)  # pyright: ignore[reportUnknownVariableType]
        return isinstance(value, str) or listed


@dataclasses.dataclass(frozen=True)
class FileName(Text):
    """The name of a file or a folder, or nothing."""

    kind: str
    """What is in it: `adapter` or `state`, or that it is a `folder`, or any other `file`."""

    expected = "the name of a file"


def _read(read: Callable[[str], Any], text: str, expected: str) -> Any:  # noqa: ANN401 - the caller's
    try:
        return read(text)
    except (ValueError, SyntaxError, TypeError, KeyError):
        raise ValueError(f"expected {expected}") from None


def _list(text: str) -> tuple[str, ...]:
    value: object = ast.literal_eval(text)
    if not isinstance(value, (list, tuple)):
        raise ValueError(text)
    return tuple(cast(Sequence[str], value))


Rule = Whole | WholeOrAuto | Number | Choice | Truth | Text | Texts
