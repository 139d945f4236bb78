"""Modules counted by block, for bars: how many of a model's blocks a file changes, and how much of each."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TypedDict

from .text import clipped, one_line

__all__ = ["Blocks", "by_block"]

_NUMBERED = re.compile(r"^(.*?[^\d._])[._]([0-9]{1,3})(?:[._]|$)")
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
    counts: dict[str, dict[int, list[int]]] = {}
    for path in modules:
        found = _NUMBERED.match(path)
        kind, number = (found[1], int(found[2])) if found else (OTHER, 0)
        if kind not in counts and len(counts) >= MOST_KINDS:
            kind, number = OTHER, 0
        cell = counts.setdefault(kind, {}).setdefault(number, [0, 0])
        cell[0] += path in took
        cell[1] += 1
    return [
        Blocks(
            name=one_line(clipped(kind, LONGEST_NAME)),
            cells=[(number, part, whole) for number, (part, whole) in sorted(cells.items())[:MOST_CELLS]],
        )
        for kind, cells in counts.items()
    ]
