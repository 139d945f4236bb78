"""The table in a safetensors header, JSON from a stranger, read entry by entry.

`json.loads` would first make objects of whatever the text holds, up to 24 times its size (`[],[],…`),
in one call that keeps every other thread waiting. Here each entry is checked and packed before the
next is looked at, so that 100 MB of anything cost time and memory in proportion.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from typing import Any, NoReturn, cast

from ..errors import FileError
from .tensor_info import DTYPE_BITS, TensorInfo

__all__ = ["LONGEST_KEY", "MOST_DIMENSIONS", "MOST_NOTES", "read_table"]

LONGEST_KEY = 1024
"""Characters of a tensor's name. Real ones have up to some 150; what is done with names may then cost their square."""

MOST_DIMENSIONS = 32
MOST_NOTES = 100_000
"""Entries of the metadata."""

_LONGEST_ENTRY = 2**16
"""Characters of a tensor's entry that is not spelled as every writer does."""

_SPACE = re.compile(r"[ \t\n\r]*")
_S = _SPACE.pattern
_NUMBER = r"(?:0|[1-9][0-9]{0,18})"
_SHAPE = re.compile(rf"{_S}(?:{_NUMBER}{_S}(?:,{_S}{_NUMBER}{_S})*)?")
_USUAL = re.compile(
    rf'{_S}"([^"\\\x00-\x1f]{{0,{LONGEST_KEY}}})"{_S}:{_S}\{{{_S}"dtype"{_S}:{_S}"([A-Za-z0-9_]{{1,32}})"{_S},{_S}'
    rf'"shape"{_S}:{_S}\[([0-9, \t\n\r]{{0,512}})\]{_S},{_S}"data_offsets"{_S}:{_S}'
    rf"\[{_S}({_NUMBER}){_S},{_S}({_NUMBER}){_S}\]{_S}\}}{_S}(,?)"
)
"""An entry as all known writers have it, without escapes, its fields in this order; and the comma after it."""
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError
    return table


_DECODER = json.JSONDecoder(object_pairs_hook=_without_doubles)


def read_table(text: str, data_start: int) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    """Tensors by key, in the table's order, and the metadata.

    Args:
        data_start: where in the file the offsets count from.

    Raises:
        FileError: it is no JSON, or says of a tensor what cannot be.
    """
    at = _after_space(text, 0)
    if text[at : at + 1] != "{":
        raise FileError("its header is not JSON, or not a JSON object; it is damaged or not safetensors")
    entries = _Entries(data_start)
    metadata: dict[str, str] | None = None
    at = _after_space(text, at + 1)
    more = text[at : at + 1] != "}"
    while more:
        if usual := _USUAL.match(text, at):
            key, dtype, shape, start, stop, comma = usual.groups()
            if key == "__metadata__":
                _refuse_notes()
            entries.add(key, dtype, entries.shape_of(key, shape), int(start), int(stop))
            at, more = usual.end(), bool(comma)
            continue
        key, at = _name(text, at)
        if key != "__metadata__":
            at = _unusual(text, at, key, entries)
        elif metadata is None:
            metadata, at = _notes(text, at)
        else:
            raise FileError("its header has __metadata__ twice; it is damaged")
        at, more = _comma(text, at)
    if text[at : at + 1] != "}" or _after_space(text, at + 1) != len(text):
        _refuse_text(at, "a comma, or the end of the table")
    return entries.tensors, metadata or {}


class _Entries:
    """The tensors so far. Shapes and names of dtypes repeat, and are kept once."""

    def __init__(self, data_start: int) -> None:
        self.tensors: dict[str, TensorInfo] = {}
        self._start = data_start
        self._dtypes: dict[str, str] = {}
        self._shapes: dict[str, tuple[tuple[int, ...], int]] = {}

    def shape_of(self, key: str, text: str) -> tuple[tuple[int, ...], int]:
        """A shape in text, and how many numbers it holds."""
        found = self._shapes.get(text)
        if found is None:
            if _SHAPE.fullmatch(text) is None:
                _refuse_entry(key)
            shape = tuple(map(int, text.split(","))) if text.strip() else ()
            found = self._shapes[text] = _counted(key, shape)
        return found

    def add(self, key: str, dtype: str, counted: tuple[tuple[int, ...], int], start: int, stop: int) -> None:
        """Add a tensor. `counted`: its shape, and how many numbers it holds, as `shape_of` gives them."""
        shape, count = counted
        bits = DTYPE_BITS.get(dtype)
        if bits is not None and (stop - start) * 8 != count * bits:
            raise FileError(
                f"{key}: {dtype} {list(shape)} takes {count * bits // 8} bytes, "
                f"the header gives it {stop - start}; it is damaged"
            )
        if key in self.tensors:
            raise FileError(f"{key}: is in the header twice; it is damaged")
        dtype = self._dtypes.setdefault(dtype, dtype)
        self.tensors[key] = TensorInfo(dtype, shape, self._start + start, self._start + stop)


def _counted(key: str, shape: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    # Without its zeros too, as torch counts strides.
    if len(shape) > MOST_DIMENSIONS or math.prod(n for n in shape if n) >= 2**63:
        _refuse_entry(key)
    return shape, math.prod(shape)


def _unusual(text: str, at: int, key: str, entries: _Entries) -> int:
    """Read an entry whose fields are in another order, or that has more of them; the position after it."""
    at = _after_space(text, at)
    # A part of the text, so that what is no entry is not made into objects whole.
    value, end = _decoded(text[at : at + 1024]) or _decoded(text[at : at + _LONGEST_ENTRY]) or (None, 0)
    if not end:
        raise FileError(f"{key}: its entry is not JSON, or has over {_LONGEST_ENTRY} characters; it is damaged")
    try:
        fields = cast(dict[str, Any], value)
        dtype, shape, (start, stop) = fields["dtype"], tuple(fields["shape"]), fields["data_offsets"]
    except (TypeError, KeyError, ValueError):
        _refuse_entry(key)
    if not isinstance(dtype, str) or not all(type(n) is int and 0 <= n < 2**63 for n in (*shape, start, stop)):
        _refuse_entry(key)
    entries.add(key, dtype, _counted(key, shape), start, stop)
    return at + end


def _decoded(text: str) -> tuple[Any, int] | None:
    try:
        return _DECODER.raw_decode(text)
    except (ValueError, RecursionError):
        return None


def _notes(text: str, at: int) -> tuple[dict[str, str], int]:
    """The metadata, a table of strings or null, and the position after it."""
    at = _after_space(text, at)
    if text.startswith("null", at):
        return {}, at + 4
    if text[at : at + 1] != "{":
        _refuse_notes()
    notes: dict[str, str] = {}
    at = _after_space(text, at + 1)
    more = text[at : at + 1] != "}"
    while more:
        name, at = _name(text, at, longest=None)
        at = _after_space(text, at)
        if text[at : at + 1] != '"':
            _refuse_notes()
        if name in notes or len(notes) == MOST_NOTES:
            raise FileError(f"its __metadata__ has {name} twice, or over {MOST_NOTES} entries; it is damaged")
        notes[name], at = _string(text, at)
        at, more = _comma(text, at)
    if text[at : at + 1] != "}":
        _refuse_text(at, "a comma, or the end of __metadata__")
    return notes, at + 1


def _name(text: str, at: int, longest: int | None = LONGEST_KEY) -> tuple[str, int]:
    """A name, and the position after its colon."""
    name, at = _string(text, _after_space(text, at))
    if longest is not None and len(name) > longest:
        raise FileError(f"{name[:50]}…: a name of {len(name)} characters, expected at most {longest}; it is damaged")
    at = _after_space(text, at)
    if text[at : at + 1] != ":":
        _refuse_text(at, "a colon")
    return name, at + 1


def _string(text: str, at: int) -> tuple[str, int]:
    found: tuple[str, int] | None = None
    if text[at : at + 1] == '"':
        with contextlib.suppress(ValueError):  # refused below: an error raised in here would keep the whole text
            found = _DECODER.raw_decode(text, at)
    if found is None or _SURROGATE.search(found[0]):
        _refuse_text(at, "a string in Unicode")
    return found


def _comma(text: str, at: int) -> tuple[int, bool]:
    """The position after a comma, or of what is there instead; whether there was one."""
    at = _after_space(text, at)
    more = text[at : at + 1] == ","
    return at + more, more


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return at if found is None else found.end()


def _refuse_text(at: int, expected: str) -> NoReturn:
    raise FileError(f"its header is not JSON (character {at}: expected {expected}); it is damaged or not safetensors")


def _refuse_entry(key: str) -> NoReturn:
    raise FileError(
        f"{key}: its entry in the header lacks a dtype, a shape of at most {MOST_DIMENSIONS} dimensions or two "
        "offsets; it is damaged"
    )


def _refuse_notes() -> NoReturn:
    raise FileError("its __metadata__ is not a table of strings, as the format wants it")
