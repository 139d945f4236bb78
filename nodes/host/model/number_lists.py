"""Lists of numbers as people write them: some with commas between, and ranges START:STOP:STEP."""

from __future__ import annotations

import re
from decimal import Decimal

from ....lyco_core.errors import SelectionError
from ....lyco_core.text import clipped, one_line

LIMIT = 64
"""The most that a list may hold, which is also as many pictures as a grid is made of."""

_NUMBER = r"\s*([-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))\s*"
_PIECE = re.compile(rf"{_NUMBER}(?::{_NUMBER}:{_NUMBER})?")


def numbers_of(what: str, text: str, largest: int) -> tuple[Decimal, ...]:
    """The numbers of `0, 0.5, 1` or `0:1:0.25`, in their order, each once; a range has both its ends.

    Args:
        what: the input's name, for messages.
        largest: the largest magnitude that a number may have.

    Raises:
        SelectionError: the text is no such list, a number is too large, or they are more than `LIMIT`.
    """
    found = dict.fromkeys(number.normalize() for piece in text.split(",") for number in _piece(what, piece, largest))
    if len(found) > LIMIT:
        raise _too_many(what, text, len(found))
    return tuple(found)


def _piece(what: str, text: str, largest: int) -> list[Decimal]:
    match = _PIECE.fullmatch(text)
    if match is None:
        raise SelectionError(
            f"{what}: '{_shown(text)}' is no number and no range; write it like 0, 0.5, 1 or START:STOP:STEP like "
            "0:1.2:0.2"
        )
    start, *rest = (_number(what, part, largest) for part in match.groups() if part)
    if not rest:
        return [start]
    stop, step = rest
    if step == 0 or (stop - start) / step < 0:
        raise SelectionError(f"{what}: '{_shown(text)}' never gets to its STOP; give its STEP the other sign")
    count = int((stop - start) // step) + 1
    if count > LIMIT:
        raise _too_many(what, text, count)
    return [start + number * step for number in range(count)]


def _number(what: str, text: str, largest: int) -> Decimal:
    number = Decimal(text)
    if abs(number) > largest:
        raise SelectionError(f"{what}: {_shown(text)}: expected a number from {-largest} to {largest}")
    return number + 0  # of -0 it makes 0


def _too_many(what: str, text: str, count: int) -> SelectionError:
    return SelectionError(f"{what}: '{_shown(text)}' is {count} numbers, expected at most {LIMIT}; write fewer")


def _shown(text: str) -> str:
    return one_line(clipped(text.strip(), 60))
