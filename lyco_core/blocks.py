"""The blocks of a model by the names of its modules: which block a module is of, how many of them a file changes, and
what a block strength of them is written with."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import TypedDict

from .text import clipped, one_line

__all__ = ["LONGEST_NAME", "OTHER", "Blocks", "block_in", "block_pattern", "by_block", "grouped_blocks"]

_NUMBERED = re.compile(r"^(.*?[^\d._])([._])([0-9]{1,3})([._]|$)")
OTHER = "other"
"""Modules that lie in no numbered block."""

MOST_KINDS = 32
"""Real files have up to a dozen; what a stranger's has beyond counts as `other`."""

MOST_CELLS = 128
"""Blocks of a kind; the page has no room for more."""

LONGEST_NAME = 100


class Blocks(TypedDict):
    """Blocks of one kind."""

    name: str
    """What their module paths begin with, such as `double_blocks`, or `other`; in one line."""
    cells: list[tuple[int, int, int]]
    """(number of the block, modules of it that are taken, modules of it) in ascending order."""


def by_block(modules: Iterable[str], taken: Iterable[str]) -> list[Blocks]:
    """Count module paths by the first number in them; kinds in the order in which they first occur.

    Of bounded size, whatever the paths: up to `MOST_KINDS` kinds and `other`, of up to `MOST_CELLS` blocks.
    """
    took = set(taken)
    return [
        Blocks(
            name=one_line(clipped(kind, LONGEST_NAME)),
            cells=[
                (number, sum(path in took for path in paths), len(paths))
                for number, paths in sorted(cells.items())[:MOST_CELLS]
            ],
        )
        for kind, cells in grouped_blocks(modules).items()
    ]


def grouped_blocks(modules: Iterable[str]) -> dict[str, dict[int, list[str]]]:
    """Kind of block -> its number -> the module paths in it; up to `MOST_KINDS` kinds and `other`."""
    kinds: dict[str, dict[int, list[str]]] = {}
    for path in modules:
        kind, number = block_in(path)
        if kind not in kinds and len(kinds) >= MOST_KINDS:
            kind, number = OTHER, 0
        kinds.setdefault(kind, {}).setdefault(number, []).append(path)
    return kinds


def block_in(path: str) -> tuple[str, int]:
    """(kind, number) of the block that a module lies in, such as ("double_blocks", 11); (`OTHER`, 0) of none."""
    found = _NUMBERED.match(path)
    return (found[1], int(found[3])) if found else (OTHER, 0)


def block_pattern(kind: str, cells: Mapping[int, Collection[str]]) -> tuple[str, str] | None:
    r"""What a regular expression for blocks of a kind has before and after their numbers: `double_blocks\.`, `\..*`.

    With the numbers between, it matches whole the names of these blocks' modules and no others that `block_in` tells
    apart. None where numbers alone do not tell them so, or the name does not go into a line of text.

    Args:
        cells: number -> the module paths of that block, all of one kind.
    """
    if kind == OTHER or kind != kind.strip() or len(kind) > LONGEST_NAME or len(cells) > MOST_CELLS:
        return None
    separators: set[str] = set()
    ends: set[str] = set()
    for number, path in ((number, path) for number, paths in cells.items() for path in paths):
        match = _NUMBERED.match(path)
        plain = path.isascii() and path.isprintable()
        if not plain or match is None or (match[1], match[3]) != (kind, str(number)):
            return None
        separators.add(match[2])
        ends.add(match[4])
    before = re.escape(separators.pop()) if len(separators) == 1 else "[._]"
    after = f"{re.escape(ends.pop())}.*" if ends in ({"."}, {"_"}) else "([._].*)?"
    return re.escape(kind) + before, after
