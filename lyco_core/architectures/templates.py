"""A block's module by its template: its name with `{n}` for the block's number."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Container

__all__ = ["NUMBERS", "split", "templates_of"]

_NUMBER = re.compile(r"(?<=[._])(0|[1-9][0-9]{0,5})(?=[._].)", re.DOTALL)

NUMBERS = 3
"""One of so many first numbers in a name is the block's; a stranger's may have a million."""


@functools.lru_cache(maxsize=2**14)
def templates_of(name: str) -> tuple[tuple[str, str], ...]:
    """(name with `{n}` for a number in it, that number), for every number that may be a block's."""
    numbers = itertools.islice(_NUMBER.finditer(name), NUMBERS)
    return tuple((f"{name[: n.start()]}{{n}}{name[n.end() :]}", n[0]) for n in numbers)


def split(name: str, known: Container[str]) -> tuple[str, str]:
    """(the template of `known` that a name means, the block's number); the name itself where it means none."""
    if name in known:  # as it stands, numbers and all
        return name, ""
    for found in templates_of(name):
        if found[0] in known:
            return found
    return name, ""
