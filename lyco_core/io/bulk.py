"""All tensors of a file at once: read, or looked through, in pieces by several threads, which see whether all are
finite."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..scratch import scratch
from .positional import SharedFile
from .tensor_info import TensorInfo

__all__ = ["all_finite", "read_whole", "views"]

PIECE = 2**23
"""Bytes that one thread reads and looks through at a time: what it has read is still in the processor's cache."""
LOOK = 2**20
"""The same where nothing of it is kept."""
THREADS = min(4, os.cpu_count() or 1)

_INFINITY: dict[str, tuple[str, int]] = {
    "F8_E4M3": ("i1", 0x7F),
    "F8_E5M2": ("i1", 0x7C),
    "F16": ("i2", 0x7C00),
    "BF16": ("i2", 0x7F80),
    "F32": ("i4", 0x7F800000),
    "F64": ("i8", 0x7FF0000000000000),
}
"""dtype -> an integer as wide, and the bits of its infinity, or of its NaN where it has none: those of all smaller
numbers are smaller."""


class _Piece(NamedTuple):
    """Tensors that lie one behind the other, in bytes of the data of all."""

    start: int
    stop: int
    runs: tuple[tuple[str, int, int], ...]
    """(dtype, start, stop) of its tensors, those of one dtype joined."""


def read_whole(file: SharedFile, tensors: Mapping[str, TensorInfo]) -> tuple[np.ndarray, bool]:
    """The data of all tensors of a file, and whether every number in it is finite.

    Raises:
        OSError, EOFError, MemoryError: it cannot be read, ends too soon, or is too large.
    """
    first = _first(tensors)
    data = np.empty(sum(info.bytes for info in tensors.values()), np.uint8)

    def read(piece: _Piece) -> bool:
        part = data[piece.start : piece.stop]
        if file.read_at(part.data, first + piece.start) < len(part):
            raise EOFError
        return all(_is_finite(data[start:stop], dtype) for dtype, start, stop in piece.runs)

    return data, _of_all(read, list(_pieces(tensors, first)))


def all_finite(file: SharedFile, tensors: Mapping[str, TensorInfo]) -> bool:
    """Whether every number of all tensors of a file is finite; each thread holds a piece of it in memory.

    Raises:
        OSError, EOFError: it cannot be read, or ends too soon.
    """
    first = _first(tensors)

    def look(piece: _Piece) -> bool:
        return all(look_through(*run) for run in piece.runs)

    def look_through(dtype: str, start: int, stop: int) -> bool:
        for at in range(start, stop, LOOK):
            part = scratch("looked through", (min(LOOK, stop - at),), torch.uint8).numpy()
            if file.read_at(part.data, first + at) < len(part):
                raise EOFError
            if not _is_finite(part, dtype):
                return False
        return True

    return _of_all(look, list(_pieces(tensors, first)))


def _of_all(holds: Callable[[_Piece], bool], pieces: list[_Piece]) -> bool:
    """Whether it holds of every piece, all of which are looked at: by threads, where there are several."""
    if len(pieces) < 2 or THREADS < 2:
        found = [holds(piece) for piece in pieces]
    else:
        with ThreadPoolExecutor(min(THREADS, len(pieces))) as threads:
            found = list(threads.map(holds, pieces))
    return all(found)


def _first(tensors: Mapping[str, TensorInfo]) -> int:
    """The byte of the file at which the data begins."""
    return min((info.start for info in tensors.values()), default=0)


def _pieces(tensors: Mapping[str, TensorInfo], first: int) -> Iterator[_Piece]:
    """The data of a file, which begins at its byte `first`, in pieces of whole tensors."""
    runs: list[tuple[str, int, int]] = []
    for info in sorted(tensors.values(), key=lambda info: info.start):
        start, stop = info.start - first, info.stop - first
        if runs and runs[-1][0] == info.dtype:
            runs[-1] = info.dtype, runs[-1][1], stop
        else:
            runs.append((info.dtype, start, stop))
        if stop - runs[0][1] >= PIECE:
            yield _Piece(runs[0][1], stop, tuple(runs))
            runs = []
    if runs:
        yield _Piece(runs[0][1], runs[-1][2], tuple(runs))


def _is_finite(data: np.ndarray, dtype: str) -> bool:
    """Whether no number in `data` is NaN or infinite, told by its bits; integers never are."""
    if dtype not in _INFINITY or not len(data):
        return True
    kind, infinity = _INFINITY[dtype]
    signed = data.view(kind)
    sign = 1 << (8 * signed.itemsize - 1)
    # As signed numbers the positive ones are the largest, as unsigned ones the negative ones.
    return int(signed.max()) < infinity and int(signed.view(kind.replace("i", "u")).max()) < sign | infinity


def views(data: np.ndarray, tensors: Mapping[str, TensorInfo], dtypes: Mapping[str, torch.dtype]) -> dict[str, Tensor]:
    """The tensors, as parts of `data`; a copy of what does not lie at a multiple of its numbers' size."""
    first = _first(tensors)
    made: dict[str, Tensor] = {}
    for key, (name, shape, start, stop) in tensors.items():
        dtype = dtypes[name]
        if start == stop:
            made[key] = torch.empty(shape, dtype=dtype)
            continue
        offset = start - first
        if offset % dtype.itemsize:
            made[key] = torch.frombuffer(data[offset : stop - first].copy(), dtype=dtype).view(shape)
        else:
            count = (stop - start) // dtype.itemsize
            made[key] = torch.frombuffer(data, dtype=dtype, count=count, offset=offset).view(shape)
    return made
