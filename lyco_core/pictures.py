"""Pictures from strangers: their kind and their size in pixels, from their first bytes, without decoding them."""

from __future__ import annotations

import os
from typing import NamedTuple

from .errors import FileError
from .io.header import open_binary, read_all

__all__ = ["MAX_PICTURE_BYTES", "MAX_SIDE", "Picture", "picture_beside", "picture_of"]

MAX_PICTURE_BYTES = 8_000_000
MAX_SIDE = 8192
"""Pixels; a few kilobytes can unpack to gigabytes in the page."""

BESIDE = (".preview.png", ".preview.jpg", ".png", ".jpg", ".jpeg", ".webp", ".preview.jpeg", ".preview.webp")
"""Endings of a picture beside `NAME.safetensors`, as model managers save it."""


class Picture(NamedTuple):
    """A preview, as it is served."""

    data: bytes
    kind: str
    """Media type."""


def picture_beside(path: str) -> Picture | None:
    """The first picture beside an adapter file; None if there is none, or that one cannot be shown.

    A link is followed only to what lies beside the file too, or beside what the file itself is a link to.
    """
    stem = os.path.splitext(path)[0]
    beside = next((stem + ending for ending in BESIDE if os.path.isfile(stem + ending)), None)
    if beside is None:
        return None
    folders = os.path.realpath(os.path.dirname(path)), os.path.dirname(os.path.realpath(path))
    real = os.path.realpath(beside)
    if os.path.dirname(real) not in folders:
        return None
    try:
        with open_binary(real) as file:
            return picture_of(read_all(file, MAX_PICTURE_BYTES))
    except FileError:
        return None


def picture_of(data: bytes) -> Picture | None:
    """The picture that some bytes are: a PNG, JPEG or WebP of at most `MAX_SIDE` pixels a side; else None.

    SVG is none: it can hold scripts.
    """
    if data.startswith(b"\x89PNG\r\n\x1a\n") and data[12:16] == b"IHDR":
        kind, size = "image/png", _two(data[16:24])
    elif data.startswith(b"\xff\xd8\xff"):
        kind, size = "image/jpeg", _jpeg_size(data)
    elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        kind, size = "image/webp", _webp_size(data)
    else:
        return None
    return Picture(data, kind) if size and min(size) > 0 and max(size) <= MAX_SIDE else None


def _two(data: bytes) -> tuple[int, int] | None:
    """Two numbers of the same width, as PNG and JPEG write them; None where they are cut off."""
    half = len(data) // 2
    return (int.from_bytes(data[:half], "big"), int.from_bytes(data[half:], "big")) if half else None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """(height, width) from the frame's segment (ITU T.81, B.2.2)."""
    at = 2
    for _ in range(1000):  # segments; real pictures have a dozen before the frame's
        if len(data) < at + 4 or data[at] != 0xFF:
            break
        marker = data[at + 1]
        if marker == 0xFF:  # padding
            at += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return _two(data[at + 5 : at + 9])
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) of the first chunk: lossy, lossless or extended (RFC 9649)."""
    chunk, body = data[12:16], data[20:30]
    if len(body) < 10:
        return None
    if chunk == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if chunk == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if chunk == b"VP8 ":
        return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF
    return None
