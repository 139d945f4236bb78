"""Modules by name: their kind, their block, and what a file changes of each."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

from ..adapters import Additive, Full
from ..combining import Base, Opened
from ..errors import Remedy

__all__ = ["OUTSIDE", "block_of", "change_of", "grouped", "kind_of", "why_left_out"]

OUTSIDE = "outside of blocks"

_NUMBER = re.compile(r"(?<=s[._])\d+(?=[._]|$)")
"""Of one among several: what is before it is in the plural. The 0 of `ffn.0` is a name."""
_BLOCK = re.compile(r"^(.*?[._]\d+)(?:[._]|$)")

Item = TypeVar("Item")


def kind_of(path: str) -> str:
    """A module path with a star for the number of a block: `blocks.*.ffn.0`."""
    return _NUMBER.sub("*", path)


def block_of(path: str) -> str:
    """What a module path begins with up to its first number: `blocks.12`."""
    found = _BLOCK.match(path)
    return found[1] if found else OUTSIDE


def grouped(items: Iterable[Item], names: Iterable[str]) -> Mapping[str, list[Item]]:
    """The items by their names; names in the order of a person, who counts 2 before 10."""
    groups: dict[str, list[Item]] = {}
    for item, name in zip(items, names, strict=True):
        groups.setdefault(name, []).append(item)
    return {group: groups[group] for group in sorted(groups, key=_counted)}


def _counted(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def why_left_out(give: Remedy, *, based: bool) -> str:
    """Why some changes cannot be had; `based`: whether the model that they depend on was given."""
    return "they are a text encoder's, whose own numbers they depend on" if based else give.value


def change_of(opened: Opened, path: str, base: Base | None) -> Additive | None:
    """What a file adds to a weight, its strength in its numbers; None where that depends on the weight and there is
    no base to read it from."""
    if path in opened.changes and opened.on_base(path) is not None:
        return None if base is None else Full(base.changes(path, [opened], together=True)[0])
    adapter, _ = opened.exact(path)
    return adapter if isinstance(adapter, Additive) else None
