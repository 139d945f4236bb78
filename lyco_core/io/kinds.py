"""What a file is that is no safetensors, by how it begins."""

from __future__ import annotations

import re
from collections.abc import Callable

__all__ = ["LOOK", "other_kind"]

LOOK = 512
"""So many bytes from the beginning of a file tell."""

_OPENED = "only safetensors files are opened"
_PICKLE = "opening one can run programs, so only safetensors files are; convert it, or get its safetensors form"
_SAVED = "save the file itself, which may take signing in to the site"
_UNPACK = "unpack it"


def _is_text(start: bytes) -> bool:
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):  # as Windows' programs mark UTF-16
        return True
    try:
        text = start.decode("utf-8")
    except UnicodeDecodeError as error:  # a character that is cut off at the end of what is looked at is none
        text = start[: error.start].decode("utf-8") if error.start > LOOK - 4 else "\0"
    return bool(text) and all(c.isprintable() or c in "\r\n\t\f\ufeff" for c in text)


def _begins(*magics: bytes) -> Callable[[bytes], bool]:
    return lambda start: start.startswith(magics)


_KINDS: tuple[tuple[Callable[[bytes], bool], str, str], ...] = (
    (
        lambda start: start[:4] == b"PK\x03\x04" and b"data.pkl" in start,
        "a pickle in a zip archive, as torch.save writes (.pt, .ckpt)",
        _PICKLE,
    ),
    (_begins(b"PK\x03\x04"), "a zip archive", _UNPACK),
    (_begins(b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"), "a pickle (.pt, .ckpt, .bin)", _PICKLE),
    (_begins(b"GGUF"), "a GGUF file", "use the file that it was made from"),
    (_begins(b"\x89HDF"), "an HDF5 file", _OPENED),
    (_begins(b"\x00\x05\x16\x07"), "what macOS keeps beside a file on other disks (._NAME)", _OPENED),
    (
        _begins(b"7z\xbc\xaf", b"Rar!", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd"),
        "an archive (7z, RAR, gzip, Zstandard)",
        _UNPACK,
    ),
    (_begins(b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"BM"), "a picture (PNG, JPEG, GIF, WebP, BMP)", _OPENED),
    (lambda start: start[4:8] == b"ftyp", "a video or a picture (MP4, AVIF, HEIC)", _OPENED),
    (_begins(b"%PDF"), "a PDF document", _OPENED),
    (
        _begins(b"version https://git-lfs"),
        "a pointer of git-lfs, which stands in a repository for the file",
        "get the file itself by git lfs pull, or from the page that it is on",
    ),
    (lambda start: re.match(rb"(\xef\xbb\xbf)?\s*<", start) is not None, "a web page or XML", _SAVED),
    (lambda start: re.match(rb"\s*[{\[]\s*(\"|\]|\})", start) is not None and _is_text(start), "JSON text", _OPENED),
    (_is_text, "a text file", _OPENED),
)
"""(whether a file that begins so is one, what it is, what to do): the first that is."""


def other_kind(start: bytes) -> tuple[str, str] | None:
    """(what a file is, what to do) by its first `LOOK` bytes; None if they do not tell."""
    if start[4:9] == b"\0\0\0\0{":  # safetensors that is cut off: its header's length may begin as anything does
        return None
    return next(((what, advice) for is_one, what, advice in _KINDS if is_one(start)), None)
