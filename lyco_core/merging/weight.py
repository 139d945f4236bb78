"""One weight of a checkpoint with everything that changes it: read, summed in float32 and rounded, by bands."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor

from ..adapters import Adapter, OnBase
from ..adapters.base import compute_dtype
from ..devices import is_cuda, knows
from ..errors import LycoError, MergeError
from ..io.reader import SafetensorsFile
from ..quantized.reading import bands
from ..quantized.rounding import generator_for, round_to
from ..scratch import scratch

__all__ = ["Piece", "Weight", "on_processor"]


@dataclasses.dataclass(frozen=True)
class Piece:
    """An adapter on rows start:stop of a weight, at a strength."""

    adapter: Adapter
    start: int
    stop: int
    strength: float
    module_path: str
    row_shape: tuple[int, ...]
    """Shape of a row of the weight: (in,) or (in, *kernel)."""

    @property
    def unsplit(self) -> bool:
        """Whether the weight must be there whole: the adapter is computed from it, or sees other rows
        than it has, (6, in) on Wan's modulation of (1, 6, in)."""
        return isinstance(self.adapter, OnBase) or self.adapter.shape[0] != self.stop - self.start

    def add_to_(self, band: Tensor, first: int) -> None:
        """Add what falls into `band`, rows of the weight from `first` on."""
        if isinstance(self.adapter, OnBase):
            rows = band[self.start : self.stop]
            self.adapter.add_to_(rows.view(rows.shape[0], *self.row_shape), self.strength)
            return
        if self.unsplit:
            self.adapter.add_to_(band.view(self.adapter.flat_shape), self.strength)
            return
        low, high = max(self.start, first), min(self.stop, first + band.shape[0])
        if low < high:
            self.adapter.add_band_(band[low - first : high - first], low - self.start, self.strength)


@dataclasses.dataclass(frozen=True)
class Weight:
    """A weight as (rows, columns): where it is read, what is added, and how it is stored again."""

    key: str
    file: SafetensorsFile
    rows: int
    columns: int
    pieces: tuple[Piece, ...]
    dtype: torch.dtype
    """What it is stored in again."""
    seed: int | None
    device: str

    def bands(self) -> Iterator[tuple[int, int]]:
        """start:stop of what is computed at a time."""
        whole = any(piece.unsplit for piece in self.pieces)
        yield from [(0, self.rows)] if whole else bands(self.rows, self.columns, 1, self.device)

    def stored(self, start: int, stop: int) -> Iterator[tuple[str, int, Tensor]]:
        """(key, first byte, tensor) of what is to be written for a band; tensors hold until the next.

        Raises:
            LycoError: the file ended, or the result is out of its dtype's range.
        """
        try:
            yield from self._stored(start, stop)
        except LycoError as error:
            if error.file is not None:
                raise
            raise error.within(f"{self.key} ({self.pieces[0].module_path})" if self.pieces else self.key) from None

    def _stored(self, start: int, stop: int) -> Iterator[tuple[str, int, Tensor]]:
        values = self._summed(start, stop)
        if self.dtype != values.dtype:
            device = self.device if knows(self.device, self.dtype) else "cpu"
            generator = generator_for(self.seed, self.key, start, device)
            narrow = scratch("narrow", values.shape, self.dtype, device)
            values = round_to(values.to(device), self.dtype, generator, narrow)
        yield self.key, start * self.columns * self.dtype.itemsize, on_processor(values)

    def _summed(self, start: int, stop: int) -> Tensor:
        """Rows start:stop in float32 (float64 if they are stored so) with everything added.

        Raises:
            MergeError: a sum is none, of numbers that were.
        """
        values = self._added(start, stop)
        # The sum of all is finite only if each is, and the much faster test.
        if self.pieces and not bool(torch.isfinite(values.sum())) and not bool(torch.isfinite(values).all()):
            summed = torch.isfinite(values)
            if bool((torch.isfinite(self._read(start, stop)) & ~summed).any()):
                raise MergeError(
                    "the result is NaN or infinite where the base is not; lower the strength, or leave it out"
                )
            values = self._added(start, stop)
        return values

    def _added(self, start: int, stop: int) -> Tensor:
        """Rows start:stop in float32 with everything added, whether the sums are finite or not."""
        values = self._read(start, stop)
        for piece in self.pieces:
            piece.add_to_(values, start)
        return values

    def _read(self, start: int, stop: int) -> Tensor:
        """Rows start:stop of the base as numbers, in memory of the thread's: the same at each call."""
        source = self.file.dtype(self.key)
        shape = (stop - start, self.columns)
        pinned = is_cuda(self.device)
        band = scratch("stored", shape, source, pinned=pinned)
        self.file.read_into(
            band.view(-1).view(torch.uint8).numpy().data, self.key, start * self.columns * source.itemsize
        )
        wide = compute_dtype(source)
        band = band if knows(self.device, source) else band.to(wide)
        return scratch("wide", shape, wide, self.device).copy_(band, non_blocking=pinned)


def on_processor(tensor: Tensor) -> Tensor:
    """The tensor where it can be written to a file from."""
    return tensor if tensor.device.type == "cpu" else tensor.cpu()
