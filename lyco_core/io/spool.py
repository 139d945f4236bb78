"""Tensors that wait on the disk until they are written: in memory only while somebody looks at them."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from types import TracebackType

import torch
from torch import Tensor

from ..errors import FileError
from .hidden import AROUND
from .new_file import WRITE_BYTES
from .output import reason_of
from .positional import write_at
from .writer import bytes_of

__all__ = ["Spool"]

_ALIGNED = 64
"""Bytes at a multiple of which a tensor begins: as in memory of its own."""


class Spool:
    """A nameless file of tensors, in the folder of what they are to be written into.

    What is moved there is maps of the file, tensors like others; it is ours alone, so nobody cuts it off. It goes with
    the last of them, and with the process, however that ends.

        with Spool(folder) as spool:
            tensors = spool.moved(tensors)
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._opened = ExitStack()
        self._fd: int | None = None
        self._end = mmap.ALLOCATIONGRANULARITY  # it begins with zeros, as what is unfinished does: see `hidden`
        self._places: dict[int, tuple[mmap.mmap, int, int]] = {}
        """Address of a tensor -> its map, and the bytes start:stop of it."""

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._opened.close()

    def moved(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The same tensors on the disk, for those in memory to go; only to be read.

        Raises:
            FileError: the disk is full, or the folder cannot be written to.
        """
        try:
            places = [self._written(tensor) for tensor in tensors]
            start, stop = places[0], self._end
            self._end = -(-stop // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
            found = mmap.mmap(self._file(), stop - start, access=mmap.ACCESS_COPY, offset=start)
        except OSError as error:
            raise FileError(
                f"what is made so far cannot be kept in {self._folder}: {reason_of(error)}; free some space there, or "
                "write elsewhere"
            ) from None
        return [self._mapped(t, found, place - start) for t, place in zip(tensors, places, strict=True)]

    def let_go(self, tensors: Iterable[Tensor]) -> None:
        """Give back the memory of those that lie here, which is read again when somebody looks again."""
        for tensor in tensors:
            if hasattr(mmap, "MADV_DONTNEED") and (place := self._places.get(tensor.data_ptr())) is not None:
                found, start, stop = place
                first = start // mmap.PAGESIZE * mmap.PAGESIZE
                found.madvise(mmap.MADV_DONTNEED, first, stop - first)

    def _mapped(self, tensor: Tensor, found: mmap.mmap, start: int) -> Tensor:
        if not tensor.numel():
            return tensor
        made = torch.frombuffer(found, dtype=tensor.dtype, count=tensor.numel(), offset=start).view(tensor.shape)
        self._places[made.data_ptr()] = found, start, start + tensor.nbytes
        return made

    def _written(self, tensor: Tensor) -> int:
        """The byte at which the tensor begins."""
        place = -(-self._end // _ALIGNED) * _ALIGNED
        data = bytes_of(tensor)
        for start in range(0, len(data), WRITE_BYTES):
            write_at(self._file(), data[start : start + WRITE_BYTES], place + start)
        self._end = place + len(data)
        return place

    def _file(self) -> int:
        if self._fd is None:
            prefix, suffix = AROUND
            made = tempfile.TemporaryFile(buffering=0, prefix=prefix, suffix=suffix, dir=self._folder)  # noqa: SIM115
            self._fd = self._opened.enter_context(made).fileno()
        return self._fd
