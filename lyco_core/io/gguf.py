"""GGUF files of a model's weights: their header, read and written again; their tensors where it says that they are.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

import dataclasses
import math
import os
import struct
from collections.abc import Mapping

from ..errors import FileError
from .header import MAX_HEADER_BYTES, Header
from .header_table import LONGEST_KEY, MOST_DIMENSIONS, MOST_NOTES
from .positional import SharedFile
from .reader import SafetensorsFile
from .tensor_info import TensorInfo

__all__ = ["BLOCKS", "GgufFile"]

BLOCKS: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 40),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
}
"""Number of a type -> its name, and how many weights make a block of how many bytes."""

_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Number of a note's type -> its bytes."""
_STRING, _ARRAY = 8, 9
_INTEGERS = {4: "I", 5: "i", 10: "Q", 11: "q"}
_ORIGINAL_SHAPE = "comfy.gguf.orig_shape."
"""ComfyUI-GGUF's note of the shape of a tensor that was flattened."""
_LONGEST_NOTE = 2**16


@dataclasses.dataclass(frozen=True)
class _Layout:
    """The raw parts of a header."""

    version: int
    notes: Mapping[str, bytes]
    """Name -> the whole entry, in the file's order."""
    table: bytes
    """The entries of all tensors."""
    tensors: int
    alignment: int
    start: int
    """The first byte of the data."""


class GgufFile(SafetensorsFile):
    """An open GGUF file, to be read as a safetensors file is; types that torch has no name for go by GGUF's."""

    def _read_header(self, file: SharedFile) -> Header:
        size = os.fstat(file.fileno()).st_size
        reader = _Reader(file, size)
        if reader.take(4) != b"GGUF":
            raise FileError("is no GGUF file, as its name says; save or download it again")
        version = reader.number("I")
        if version not in (2, 3):
            raise FileError(f"is GGUF of version {version}, expected 2 or 3")
        count, notes_count = reader.number("Q"), reader.number("Q")
        if max(count, notes_count) > MOST_NOTES:
            raise FileError(f"its header has {count} tensors and {notes_count} notes; it is damaged")
        notes, texts, shapes = _notes(reader, notes_count)
        alignment = int(texts.pop("general.alignment", "32"))
        if not 1 <= alignment <= 2**16:
            raise FileError(f"its general.alignment is {alignment}; it is damaged")
        first = reader.position
        entries = [_entry(reader) for _ in range(count)]
        start = -(-reader.position // alignment) * alignment
        self.layout = _Layout(version, notes, bytes(reader.read[first : reader.position]), count, alignment, start)
        return Header(_placed(entries, shapes, start, size), texts, size)

    def header_bytes(self, notes: Mapping[str, str]) -> bytes:
        """The file's header with these notes in place of those of their names; tensors keep their places behind it."""
        own = {**self.layout.notes, **{key: _note(key, text) for key, text in notes.items()}}
        head = b"GGUF" + struct.pack("<IQQ", self.layout.version, self.layout.tensors, len(own))
        head += b"".join(own.values()) + self.layout.table
        return head + b"\0" * (-len(head) % self.layout.alignment)


class _Reader:
    """Reads a header value by value, and not beyond what a header can be."""

    def __init__(self, file: SharedFile, size: int) -> None:
        self._file, self._most = file, min(size, MAX_HEADER_BYTES)
        self.read = bytearray()
        self.position = 0

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        if self.position + count > self._most:
            raise FileError("ends in its header, or that is longer than a header can be; save or download it again")
        while len(self.read) < self.position + count:
            if not (chunk := self._file.read(max(count, 2**16))):
                raise FileError("ends while its header is being read; was it replaced? load it again")
            self.read += chunk
        self.position += count
        return bytes(self.read[self.position - count : self.position])

    def number(self, kind: str) -> int:
        """The next number, little-endian, of a kind that `struct` names."""
        return struct.unpack(f"<{kind}", self.take(struct.calcsize(kind)))[0]

    def text(self, longest: int) -> str:
        """The next string, of at most `longest` bytes."""
        length = self.number("Q")
        if length > longest:
            raise FileError(f"its header has a name of {length} bytes; it is damaged")
        return self.take(length).decode("utf-8", "replace")


def _notes(reader: _Reader, count: int) -> tuple[dict[str, bytes], dict[str, str], dict[str, tuple[int, ...]]]:
    """Name -> raw entry; name -> text, of short strings and whole numbers; tensor -> the shape that it had."""
    raw: dict[str, bytes] = {}
    texts: dict[str, str] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for _ in range(count):
        first = reader.position
        key, kind = reader.text(LONGEST_KEY), reader.number("I")
        if key in raw:
            raise FileError(f"{key}: its header has this note twice; it is damaged")
        value = reader.position
        numbers = _skip(reader, kind, depth=0)
        if kind == _STRING and reader.position - value - 8 <= _LONGEST_NOTE:
            texts[key] = bytes(reader.read[value + 8 : reader.position]).decode("utf-8", "replace")
        elif kind in _INTEGERS:
            texts[key] = str(struct.unpack(f"<{_INTEGERS[kind]}", reader.read[value : reader.position])[0])
        elif numbers and key.startswith(_ORIGINAL_SHAPE):
            shapes[key.removeprefix(_ORIGINAL_SHAPE)] = numbers
        raw[key] = bytes(reader.read[first : reader.position])
    return raw, texts, shapes


def _skip(reader: _Reader, kind: int, depth: int) -> tuple[int, ...]:
    """Past a value; the numbers of it, if it is a short list of whole ones."""
    if kind in _SIZES:
        reader.take(_SIZES[kind])
    elif kind == _STRING:
        reader.take(reader.number("Q"))
    elif kind == _ARRAY and depth < 4:
        inner, count = reader.number("I"), reader.number("Q")
        if inner in _SIZES:
            data = reader.take(count * _SIZES[inner])
            if inner in _INTEGERS and 0 < count <= MOST_DIMENSIONS:
                return struct.unpack(f"<{count}{_INTEGERS[inner]}", data)
        else:
            for _ in range(count):
                _skip(reader, inner, depth + 1)
    else:
        raise FileError(f"its header has a note of an unknown kind, {kind}; it is damaged")
    return ()


def _entry(reader: _Reader) -> tuple[str, tuple[int, ...], int, int]:
    """(name, shape, number of the type, first byte of the data) of a tensor."""
    key, count = reader.text(LONGEST_KEY), reader.number("I")
    if count > MOST_DIMENSIONS:
        raise FileError(f"{key}: has {count} dimensions; the file is damaged")
    shape = tuple(reader.number("Q") for _ in range(count))[::-1]
    if max(shape, default=0) >= 2**60:
        raise FileError(f"{key}: has a dimension of {max(shape)}; the file is damaged")
    return key, shape, reader.number("I"), reader.number("Q")


def _placed(
    entries: list[tuple[str, tuple[int, ...], int, int]], shapes: Mapping[str, tuple[int, ...]], start: int, size: int
) -> dict[str, TensorInfo]:
    """The tensors by name; each lies inside the file and apart from the others."""
    found: dict[str, TensorInfo] = {}
    for key, shape, kind, offset in entries:
        if key in found:
            raise FileError(f"{key}: its header has this tensor twice; it is damaged")
        if kind not in BLOCKS:
            raise FileError(f"{key}: is of type {kind}, which no GGUF file that is known here has")
        name, block, each = BLOCKS[kind]
        if (width := shape[-1] if shape else 1) % block:
            raise FileError(f"{key}: has rows of {width} weights, {name} has blocks of {block}; the file is damaged")
        first = start + offset
        stop = first + math.prod(shape) // block * each
        if stop > size:
            raise FileError(f"{key}: its data ends at byte {stop}, the file at {size}; save or download it again")
        original = shapes.get(key, shape)
        alike = math.prod(original) == math.prod(shape) and min(original, default=1) > 0
        found[key] = TensorInfo(name, original if alike else shape, first, stop)
    end = 0
    for key, info in sorted(found.items(), key=lambda item: item[1].start):
        if info.start < end:
            raise FileError(f"{key}: its data begins at byte {info.start}, inside another's; the file is damaged")
        end = info.stop
    return found


def _note(key: str, text: str) -> bytes:
    name, value = key.encode(), text.encode()
    return struct.pack("<Q", len(name)) + name + struct.pack("<IQ", _STRING, len(value)) + value
