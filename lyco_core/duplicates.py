"""Modules that a file has under two layouts' names: a fused one and its parts. Each row of a weight counts once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from .adapter_set import AdapterSet
from .adapters import Adapter, agreed, changes_nothing, cut, is_outline
from .errors import AdapterError
from .modules_once import why_left_out

if TYPE_CHECKING:
    from .placed import Placed

__all__ = ["duplicate_modules"]


def duplicate_modules(placed: Iterable[Placed], found: AdapterSet) -> dict[str, str]:
    """Path -> why it counts for nothing, of modules all of whose rows another module changes alike, or which are zero.

    Of outlines, whose numbers nobody knows yet, the one of more rows stands for all.

    Raises:
        AdapterError: two modules change the same rows and contradict each other.
    """
    crowded = _crowded(placed)
    zero = {path for path in crowded if not is_outline(found.adapters[path]) and changes_nothing(found.adapters[path])}
    kept: dict[str, list[Placed]] = {}
    why: dict[str, str] = {}
    for path in sorted(crowded, key=lambda path: (path in zero, -sum(_height(piece) for piece in crowded[path]))):
        pieces = crowded[path]
        clashes = [(piece, other) for piece in pieces for other in kept.get(piece.key, ()) if _overlap(piece, other)]
        if clashes and path in zero:
            why[path] = "zero, beside another module of the same rows"
        elif clashes:
            _require_same(path, pieces, clashes, found)
            why[path] = why_left_out(found.adapters[clashes[0][1].module_path])
        else:
            for piece in pieces:
                kept.setdefault(piece.key, []).append(piece)
    return why


def _crowded(placed: Iterable[Placed]) -> dict[str, list[Placed]]:
    """All pieces of each module that has one on rows that another module changes too."""
    of_module: dict[str, list[Placed]] = {}
    of_key: dict[str, list[Placed]] = {}
    for piece in placed:
        of_module.setdefault(piece.module_path, []).append(piece)
        of_key.setdefault(piece.key, []).append(piece)
    shared = (pieces for pieces in of_key.values() if len(pieces) > 1)
    paths = dict.fromkeys(
        piece.module_path
        for pieces in shared
        for piece in pieces
        if any(_overlap(piece, other) for other in pieces if other is not piece)
    )
    return {path: of_module[path] for path in paths}


def _require_same(path: str, pieces: list[Placed], clashes: list[tuple[Placed, Placed]], found: AdapterSet) -> None:
    """Raise `AdapterError` unless each piece lies in one other, and is the same change there."""
    others = dict(clashes)
    for piece in pieces:
        other = others.get(piece, clashes[0][1])
        ours, theirs = found.adapters[path], found.adapters[other.module_path]
        if is_outline(ours) or is_outline(theirs):
            continue
        inside = piece in others and _rows(other)[0] <= _rows(piece)[0] and _rows(piece)[1] <= _rows(other)[1]
        part = _cut(other, theirs, piece) if inside else None
        if part is None or agreed(part, piece.part(ours)) is None:
            raise AdapterError(
                f"{found.prefixes[path]} and {found.prefixes[other.module_path]} both change {piece.key}, "
                "and not alike; remove one of them from the file"
            )


def _cut(piece: Placed, adapter: Adapter, target: Placed) -> Adapter | None:
    """What `piece` of the adapter does to the rows of `target`, which lie in its own."""
    part = piece.part(adapter)
    if _rows(piece) == _rows(target):
        return part
    start, stop = (row - _rows(piece)[0] for row in _rows(target))
    return cut(part, start, stop)


def _rows(piece: Placed) -> tuple[int, int]:
    return piece.rows or (0, piece.shape[0])


def _height(piece: Placed) -> int:
    return _rows(piece)[1] - _rows(piece)[0]


def _overlap(first: Placed, second: Placed) -> bool:
    return max(_rows(first)[0], _rows(second)[0]) < min(_rows(first)[1], _rows(second)[1])
