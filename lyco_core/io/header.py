"""The header of a safetensors file: what tensors it holds, where, and its metadata.

Format: https://github.com/huggingface/safetensors#format. Needs no torch.
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
from collections.abc import Mapping
from typing import Any, cast

from ..errors import FileError, about_file

__all__ = ["DTYPE_BITS", "MAX_HEADER_BYTES", "Header", "TensorInfo", "read_header"]

MAX_HEADER_BYTES = 100_000_000
"""The format's own limit."""

DTYPE_BITS: dict[str, int] = {
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "I16": 16,
    "U16": 16,
    "I32": 32,
    "U32": 32,
    "I64": 64,
    "U64": 64,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "F8_E8M0": 8,
    "F16": 16,
    "BF16": 16,
    "F32": 32,
    "F64": 64,
    "C64": 64,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
}

_OTHER_FILES: tuple[tuple[bytes, str], ...] = (
    (b"PK\x03\x04", "a zip archive, as torch.save writes (.pt, .ckpt)"),
    (b"\x80", "a pickle (.pt, .ckpt, .bin)"),
    (b"GGUF", "a GGUF file"),
    (b"\x89HDF", "an HDF5 file"),
    (b"<", "a web page or XML"),
)


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """One tensor of a file: its dtype as the header spells it, shape, and bytes start:stop of the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def bytes(self) -> int:
        """Size of its data."""
        return self.stop - self.start


@dataclasses.dataclass(frozen=True)
class Header:
    """What a safetensors file holds."""

    tensors: Mapping[str, TensorInfo]
    """Key -> where it is, in the header's order."""
    metadata: Mapping[str, str]
    file_bytes: int


def read_header(path: str | os.PathLike[str]) -> Header:
    """Read and check the header of a safetensors file; no tensor is read.

    Raises:
        FileError: the file cannot be read, is not safetensors, or contradicts itself.
    """
    with about_file(path), open_binary(path) as file:
        return header_of(file)


def open_binary(path: str | os.PathLike[str]) -> io.FileIO:
    """Open a file for reading; raises `FileError` where the system says no."""
    try:
        return io.FileIO(path, "r")
    except OSError as error:
        raise FileError(f"cannot be read: {error.strerror}") from None


def header_of(file: io.FileIO) -> Header:
    """The header of an open safetensors file; see `read_header`."""
    size = os.fstat(file.fileno()).st_size
    if size == 0:
        raise FileError("is empty (0 bytes); expected a safetensors file; save or download it again")
    start = file.read(8)
    length = int.from_bytes(start, "little")
    if size < 8 or length > size - 8:
        _refuse_other_files(start)
        raise FileError(
            f"its header should be {length} bytes, the file has {max(size - 8, 0)} after the length; "
            "it is cut off or not a safetensors file; save or download it again"
        )
    if length > MAX_HEADER_BYTES:
        _refuse_other_files(start)
        raise FileError(f"its header is {length} bytes; the format allows {MAX_HEADER_BYTES}")
    parsed = _parse(_read_exactly(file, length))
    metadata: Any = parsed.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in cast(dict[Any, Any], metadata).values()):
        raise FileError("its __metadata__ is not a table of strings, as the format wants it")
    tensors = {key: _tensor(key, entry, 8 + length) for key, entry in parsed.items()}
    _check_offsets(tensors, 8 + length, size)
    return Header(tensors, cast(dict[str, str], metadata), size)


def _refuse_other_files(start: bytes) -> None:
    """Name what a file is that cannot be safetensors, if its first bytes tell."""
    for magic, what in _OTHER_FILES:
        if start.startswith(magic):
            advice = "use the file that it was made from" if magic == b"GGUF" else "only safetensors files are opened"
            raise FileError(f"is {what}, expected safetensors; {advice}")


def _read_exactly(file: io.FileIO, length: int) -> bytes:
    chunks: list[bytes] = []
    while length > 0:
        chunk = file.read(length)
        if not chunk:
            raise FileError("ends while its header is being read; was it replaced? load it again")
        chunks.append(chunk)
        length -= len(chunk)
    return b"".join(chunks)


def _parse(text: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FileError(f"its header is not JSON ({error}); it is damaged or not a safetensors file") from None
    if not isinstance(parsed, dict):
        raise FileError("its header is not a JSON object; it is damaged or not a safetensors file")
    return cast(dict[str, Any], parsed)


def _tensor(key: str, entry: object, data_start: int) -> TensorInfo:
    try:
        fields = cast(dict[str, Any], entry)
        dtype, shape, (start, stop) = fields["dtype"], tuple(fields["shape"]), fields["data_offsets"]
        if not isinstance(dtype, str) or not all(type(n) is int and n >= 0 for n in (*shape, start, stop)):
            raise ValueError
        if math.prod(n for n in shape if n) >= 2**63:
            raise ValueError
    except (TypeError, KeyError, ValueError):
        raise FileError(
            f"{key}: its entry in the header lacks a dtype, a shape or two offsets; it is damaged"
        ) from None
    info = TensorInfo(dtype, shape, data_start + start, data_start + stop)
    bits = DTYPE_BITS.get(dtype)
    if bits is not None and info.bytes * 8 != math.prod(shape) * bits:
        raise FileError(
            f"{key}: {dtype} {list(shape)} takes {math.prod(shape) * bits // 8} bytes, "
            f"the header gives it {info.bytes}; it is damaged"
        )
    return info


def _check_offsets(tensors: Mapping[str, TensorInfo], data_start: int, size: int) -> None:
    """Tensors lie end to end, as the format wants it: no holes, no overlaps, nothing after."""
    end = data_start
    for key, info in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].stop)):
        if info.start != end or info.stop < info.start:
            raise FileError(
                f"{key}: its data begins at byte {info.start}, expected {end}: "
                "tensors overlap or leave a hole; the file is damaged"
            )
        end = info.stop
    if end != size:
        what = "is cut off" if end > size else "has something after its last tensor"
        raise FileError(f"{what}: its tensors end at byte {end}, the file at {size}; save or download it again")
