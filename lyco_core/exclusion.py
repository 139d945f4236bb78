"""A pattern that leaves out what has no place and nothing else: short, and fit to be pasted."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import islice

__all__ = ["exclusion"]

LONGEST = 600
"""Characters of a pattern; what does not fit is left to the next error."""

LONGEST_NAME = 200
"""Real ones have up to a hundred."""

_NUMBER = re.compile(r"\d+")


def exclusion(left: Iterable[str], taken: Iterable[str]) -> str:
    """A regular expression that matches `left`, or as much of it as there is room for, and none of `taken`.

    Of characters that no shell takes for its own, whatever the names. Each name is cut where no
    taken one begins so; those that differ in numbers alone share an alternative where they can.
    """
    names = {name[:LONGEST_NAME] for name in taken}
    begun = {beginning for name in names for beginning in _beginnings(name)}
    alike: dict[tuple[str, ...], list[list[str]]] = {}
    for name in dict.fromkeys(left):
        if len(name) <= LONGEST_NAME and not any(c.isdecimal() and not c.isascii() for c in name):
            short = next((b for b in _beginnings(name) if b not in begun), name)
            text = _safe(short) + (".*" if short != name else "")
            alike.setdefault(tuple(_NUMBER.split(text)), []).append(_NUMBER.findall(text))
    pattern = ""
    for pieces, numbers in alike.items():
        for alternative in _alternatives(pieces, numbers, names):
            longer = f"{pattern}|{alternative}" if pattern else alternative
            if len(longer) > LONGEST:
                return pattern
            pattern = longer
    return pattern


def _beginnings(name: str) -> Iterator[str]:
    """What a name begins with, up to each dot or underscore, shortest first."""
    return (name[: mark.end()] for mark in islice(re.finditer(r"[._]", name), 30))


def _alternatives(pieces: tuple[str, ...], numbers: list[list[str]], taken: Iterable[str]) -> Iterator[str]:
    """Patterns for names of these pieces with those numbers between them: one, if that matches nothing taken."""
    alone = list(dict.fromkeys(_joined(pieces, row) for row in numbers))
    if len(alone) > 1:
        columns = [sorted(set(column), key=int) for column in zip(*numbers, strict=True)]
        some = [column[0] if len(column) == 1 else f"(?:{'|'.join(column)})" for column in columns]
        for whole in (_joined(pieces, [r"\d+"] * len(columns)), _joined(pieces, some)):
            if not any(re.fullmatch(whole, name) for name in taken):
                yield whole
                return
    yield from (one for one in alone if not any(re.fullmatch(one, name) for name in taken))


def _joined(pieces: tuple[str, ...], between: list[str]) -> str:
    return "".join(piece + number for piece, number in zip(pieces, [*between, ""], strict=True))


def _safe(name: str) -> str:
    """A pattern for a name: what a shell, or an expression, could take otherwise is any character but a digit."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "_-/") else r"\." if c == "." else r"\D" for c in name)
