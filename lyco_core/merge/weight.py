"""One weight of a checkpoint with everything that changes it: read, summed in float32 and rounded, by bands."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ..adapters import Adapter
from ..adapters.base import compute_dtype
from ..errors import LycoError, MergeError
from ..io.reader import SafetensorsFile
from ..scratch import scratch
from .devices import is_cuda, knows
from .rounding import generator_for, largest, round_to
from .storage import Scaling

__all__ = ["BAND_BYTES", "Piece", "Weight"]

UNSCALABLE = "the weight holds numbers that are NaN, infinite or too large for its scale; it cannot be scaled"

BAND_BYTES = 2**23
"""float32 bytes of one band: large enough that starting it costs nothing; each of 16 workers holds two of them."""


@dataclasses.dataclass(frozen=True)
class Piece:
    """An adapter on rows start:stop of a weight, at a strength."""

    adapter: Adapter
    start: int
    stop: int
    strength: float
    module_path: str
    row_shape: tuple[int, ...]
    """Of the weight: (in,) or (in, *kernel)."""

    @property
    def unsplit(self) -> bool:
        """Whether the weight must be there whole: the adapter is computed from it, or sees other rows
        than it has, (6, in) on Wan's modulation of (1, 6, in)."""
        return self.adapter.needs_base or self.adapter.shape[0] != self.stop - self.start

    def add_to_(self, band: Tensor, first: int) -> None:
        """Add what falls into `band`, rows of the weight from `first` on."""
        if self.adapter.needs_base:
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
    scaling: Scaling | None
    scale: Tensor | None
    """Of `scaling`, as the file has it."""
    dtype: torch.dtype
    """To store it in."""
    keeps_scaling: bool
    seed: int | None
    device: str

    def bands(self) -> Iterator[tuple[int, int]]:
        """start:stop of bands; a weight under one scale is one band, computed twice."""
        one = self.scaling is not None and self.keeps_scaling and self.scaling.whole
        yield from [(0, self.rows)] if one else self._bands()

    def stored(self, start: int, stop: int) -> Iterator[tuple[str, int, Tensor]]:
        """(key, first byte, tensor) of what is to be written for a band; tensors hold until the next.

        Raises:
            LycoError: the file ended, or the result is out of its dtype's range.
        """
        try:
            if self.scaling is None or not self.keeps_scaling:
                yield self._plain(start, stop)
            elif self.scaling.whole:
                yield from self._under_one_scale(self.scaling)
            else:
                yield from self._under_scales(self.scaling, start, stop)
        except LycoError as error:
            if error.file is not None:
                raise
            raise error.within(f"{self.key} ({self.pieces[0].module_path})" if self.pieces else self.key) from None

    def _bands(self) -> list[tuple[int, int]]:
        step = max(1, BAND_BYTES // (4 * max(self.columns, 1)))
        if any(piece.unsplit for piece in self.pieces):
            step = self.rows
        return [(start, min(start + step, self.rows)) for start in range(0, self.rows, step)]

    def _plain(self, start: int, stop: int) -> tuple[str, int, Tensor]:
        rounded = self._rounded(self._summed(start, stop), start)
        return self.key, start * self.columns * self.dtype.itemsize, _on_processor(rounded)

    def _under_scales(self, scaling: Scaling, start: int, stop: int) -> Iterator[tuple[str, int, Tensor]]:
        values = self._summed(start, stop)
        scale = scaling.fresh(values)
        if not bool(torch.isfinite(scale).all()):
            raise MergeError(UNSCALABLE)
        yield self._quantized(scaling, values, scale, start)
        yield scaling.key, scaling.rows(start, stop)[0] * scaling.dtype.itemsize, _on_processor(scale)

    def _under_one_scale(self, scaling: Scaling) -> Iterator[tuple[str, int, Tensor]]:
        peaks = [largest(self._summed(*band)) for band in self._bands()]
        scale = scaling.of_peak(torch.full((), max(peaks), device=self.device))
        # max() alone would pass over a NaN
        if not all(map(math.isfinite, peaks)) or not bool(torch.isfinite(scale)):
            raise MergeError(UNSCALABLE)
        for start, stop in self._bands():
            yield self._quantized(scaling, self._summed(start, stop), scale, start)
        yield scaling.key, 0, _on_processor(scale)

    def _quantized(self, scaling: Scaling, values: Tensor, scale: Tensor, start: int) -> tuple[str, int, Tensor]:
        rounded = self._rounded(scaling.divide_(values, scale), start)
        return self.key, start * self.columns, _on_processor(rounded)

    def _rounded(self, values: Tensor, start: int) -> Tensor:
        if self.dtype == values.dtype:
            return values
        device = self.device if knows(self.device, self.dtype) else "cpu"
        generator = generator_for(self.seed, self.key, start, device)
        return round_to(values.to(device), self.dtype, generator, scratch("narrow", values.shape, self.dtype, device))

    def _summed(self, start: int, stop: int) -> Tensor:
        """Rows start:stop in float32 (float64 if they are stored so) with everything added.

        Raises:
            MergeError: a sum is none, of numbers that were.
        """
        values = self._read(start, stop)
        for piece in self.pieces:
            piece.add_to_(values, start)
        # The sum of all is finite only if each is, and the much faster test.
        if self.pieces and not bool(torch.isfinite(values.sum())) and not bool(torch.isfinite(values).all()):
            summed = torch.isfinite(values)
            if bool((torch.isfinite(self._read(start, stop)) & ~summed).any()):
                raise MergeError(
                    "the result is NaN or infinite where the base is not; lower the strength, or leave it out"
                )
            for piece in self.pieces:
                piece.add_to_(values, start)
        return values

    def _read(self, start: int, stop: int) -> Tensor:
        """Rows start:stop of the base as numbers."""
        source = self.file.dtype(self.key)
        shape = (stop - start, self.columns)
        pinned = is_cuda(self.device)
        band = scratch("stored", shape, source, pinned=pinned)
        self.file.read_into(
            band.view(-1).view(torch.uint8).numpy().data, self.key, start * self.columns * source.itemsize
        )
        wide = compute_dtype(source)
        band = band if knows(self.device, source) else band.to(wide)
        values = scratch("wide", shape, wide, self.device).copy_(band, non_blocking=pinned)
        if self.scaling is not None and self.scale is not None:
            first, last = self.scaling.rows(start, stop)
            self.scaling.multiply_(values, self.scale.view(-1)[first:last].to(self.device))
        return values


def _on_processor(tensor: Tensor) -> Tensor:
    return tensor if tensor.device.type == "cpu" else tensor.cpu()
