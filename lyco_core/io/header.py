"""The header of a safetensors file: what tensors it holds, where, and its metadata.

Format: https://github.com/huggingface/safetensors#format. Needs no torch.
"""

from __future__ import annotations

import dataclasses
import io
import os
import stat
from collections.abc import Iterable, Mapping

from ..errors import FileError, about_file
from .header_table import read_table
from .kinds import LOOK, other_kind
from .positional import SharedFile
from .tensor_info import DTYPE_BITS, TensorInfo

__all__ = ["DTYPE_BITS", "MAX_HEADER_BYTES", "Header", "TensorInfo", "header_length", "read_header"]

MAX_HEADER_BYTES = 100_000_000
"""The format's own limit."""


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


def header_length(path: str | os.PathLike[str]) -> int:
    """How many bytes of header a file says it has, unread and unchecked; raises `FileError` as `read_header`."""
    with about_file(path), open_binary(path) as file:
        return int.from_bytes(_start(file), "little")


def open_binary(path: str | os.PathLike[str]) -> SharedFile:
    """Open a file for reading.

    Raises:
        FileError: the system says no, or it is no file: a pipe, say, which might never answer.
    """
    try:
        file = SharedFile(path)
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
        if "\0" not in os.fspath(path) and os.path.isdir(path):  # which Windows calls "Permission denied"
            raise FileError("is a folder; name a file") from None
        raise FileError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise FileError("cannot be read: is no file but a pipe or a device; expected a safetensors file")
    return file


def read_all(file: io.FileIO, most: int) -> bytes:
    """What is left of a file; raises `FileError` where that is over `most` bytes."""
    try:
        chunks: list[bytes] = []
        while most >= 0 and (chunk := file.read(most + 1)):
            chunks.append(chunk)
            most -= len(chunk)
    except OSError as error:
        raise FileError(f"cannot be read: {error.strerror}") from None
    if most < 0:
        raise FileError("is larger than such a file can be")
    return b"".join(chunks)


def header_of(file: SharedFile) -> Header:
    """The header of an open safetensors file; see `read_header`."""
    size = os.fstat(file.fileno()).st_size
    if size == 0:
        raise FileError("is empty (0 bytes); expected a safetensors file; save or download it again")
    length = int.from_bytes(_start(file), "little")
    if size < 8 or length > min(size - 8, MAX_HEADER_BYTES):
        _refuse_other_kinds(file)
    if size < 8 or length > size - 8:
        raise FileError(
            f"its header should be {length} bytes, the file has {max(size - 8, 0)} after the length; "
            "it is cut off or not a safetensors file; save or download it again"
        )
    if length > MAX_HEADER_BYTES:
        raise FileError(f"its header is {length} bytes; the format allows {MAX_HEADER_BYTES}")
    tensors, metadata = read_table(_text(file, length), 8 + length)
    _check_offsets(tensors, 8 + length, size)
    return Header(tensors, metadata, size)


def _start(file: io.FileIO) -> bytes:
    try:
        return file.read(8)
    except OSError as error:
        raise FileError(f"cannot be read: {error.strerror}") from None


def _refuse_other_kinds(file: SharedFile) -> None:
    """Name what a file is that cannot be safetensors, if its first bytes tell."""
    start = bytearray(LOOK)
    try:
        read = file.read_at(memoryview(start), 0)
    except OSError as error:
        raise FileError(f"cannot be read: {error.strerror}") from None
    if kind := other_kind(bytes(start[:read])):
        what, advice = kind
        raise FileError(f"is {what}, expected safetensors; {advice}")


def _text(file: SharedFile, length: int) -> str:
    try:
        return str(_read_exactly(file, length), "utf-8")
    except UnicodeDecodeError as error:
        reason = f"byte {error.start}: {error.reason}"
    # Raised here, where the error above, which holds the whole header, is gone.
    raise FileError(f"its header is not JSON in UTF-8 ({reason}); it is damaged or not a safetensors file")


def _read_exactly(file: SharedFile, length: int) -> bytearray:
    data = bytearray(length)
    try:
        done = file.read_at(memoryview(data), 8)
    except OSError as error:
        raise FileError(f"cannot be read: {error.strerror}") from None
    if done < length:
        raise FileError("ends while its header is being read; was it replaced? load it again")
    return data


def _check_offsets(tensors: Mapping[str, TensorInfo], data_start: int, size: int) -> None:
    """Tensors lie end to end, as the format wants it: no holes, no overlaps, nothing after."""
    end = data_start
    for key, info in _by_place(tensors, data_start):
        if info.start != end or info.stop < info.start:
            raise FileError(
                f"{key}: its data begins at byte {info.start}, expected {end}: "
                "tensors overlap or leave a hole; the file is damaged"
            )
        end = info.stop
    if end != size:
        what = "is cut off" if end > size else "has something after its last tensor"
        raise FileError(f"{what}: its tensors end at byte {end}, the file at {size}; save or download it again")


def _by_place(tensors: Mapping[str, TensorInfo], data_start: int) -> Iterable[tuple[str, TensorInfo]]:
    """In the order of their data, which is most headers' own."""
    end = data_start
    for info in tensors.values():
        if info.start != end:
            return sorted(tensors.items(), key=lambda item: item[1][2:])
        end = info.stop
    return tensors.items()
