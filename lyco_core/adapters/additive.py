"""Adapters whose change is the same whatever the weight: LoRA, LoHa, LoKr, and differences saved whole."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from .. import fused
from ..devices import COMPLETE
from .base import Adapter

__all__ = ["Additive"]


class Additive(Adapter):
    """W' = W + strength * ΔW. ΔW can be had alone, applied beside the weight, and added by bands."""

    def delta_weight(self, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None) -> Tensor:
        """ΔW of `shape` at strength 1, scale applied, computed in float32 and rounded once."""
        compute = torch.float64 if dtype == torch.float64 else torch.float32
        device = device or next(iter(self.tensors.values())).device
        return self.add_to_(torch.zeros(self.shape, dtype=compute, device=device)).to(dtype)

    def add_to_(self, weight: Tensor, strength: float = 1.0) -> Tensor:
        """`weight += strength * ΔW` in place, by bands: ΔW as a whole is never built.

        `weight`: `shape`, or any shape with as many rows and as many elements to a row. Half
        precision weights are summed in float32 band by band and rounded once.

        Raises `AdapterError` if the weight's shape differs.
        """
        self.require_fit(weight)
        factor = strength * self.scale
        if factor != 0:
            flat = weight.reshape(self.flat_shape)
            if not self._fused_(flat, factor):
                self._add_to_(flat, factor)
            if flat.data_ptr() != weight.data_ptr():  # no view, in channels_last say: a copy was changed
                weight.copy_(flat.reshape(weight.shape))
        return weight

    def add_band_(self, band: Tensor, start: int, strength: float = 1.0) -> Tensor:
        """`band += strength * ΔW[start : start + len(band)]` in place.

        `band`: (rows, …) with as many elements to a row as `shape`, of any height and at any
        `start`, also where `rows` gives None.
        """
        stop = start + band.shape[0]
        edges = [start, *self.edges(start, stop), stop]
        for first, last in itertools.pairwise(edges):
            piece = self.rows(first, last)
            assert piece is not None
            piece.add_to_(band[first - start : last - start], strength)
        return band

    def edges(self, start: int, stop: int) -> list[int]:
        """Rows strictly between the two at which a band must be cut for `rows` to express its parts."""
        return []

    def _fused_(self, flat: Tensor, factor: float) -> bool:
        """`_add_to_` by one kernel; False, and nothing done, where there is none for it."""
        halves = self.halves(flat.device) if fused.ready(flat.device) else ()
        return bool(halves) and fused.combine(flat, flat, halves, factor)

    def halves(self, device: torch.device) -> Sequence[fused.Half]:
        """One or two matrices on `device` whose elements, multiplied, are those of the unscaled ΔW, in the dtypes that
        the factors have; none where there are no such two."""
        return ()

    @abstractmethod
    def _add_to_(self, flat: Tensor, factor: float) -> None:
        """`flat += factor * (unscaled ΔW)` in place; flat: (out, in·kernel), any float dtype."""

    @abstractmethod
    def apply(self, x: Tensor) -> Tensor:
        """`x @ ΔW.T`: (…, in·kernel) -> (…, out), in x's dtype (convolutions: unfolded patches)."""

    def apply_to_(self, x: Tensor, output: Tensor, strength: float = 1.0) -> Tensor:
        """`output += strength * x @ ΔW.T` in place, where it can without a tensor as large beside it."""
        lines = _lines(output)
        if lines is None or x.dtype != output.dtype or output.device.type not in COMPLETE:
            return output.add_(self.apply(x), alpha=strength)
        self._apply_to_(x.reshape(-1, x.shape[-1]), lines, strength * self.scale)
        return output

    def _apply_to_(self, x: Tensor, output: Tensor, factor: float) -> None:
        """`output += factor * x @ (unscaled ΔW).T` in place: (n, in·kernel) and (n, out), whose rows may lie apart."""
        output.add_(self.apply(x), alpha=factor / self.scale)

    @abstractmethod
    def rows(self, start: int, stop: int) -> Additive | None:
        """The adapter of rows start:stop of ΔW, exact; None where the algebra cannot express it."""


def _lines(output: Tensor) -> Tensor | None:
    """(…, n) as (lines, n) in the same memory; None where its lines do not follow each other evenly."""
    *outer, _ = zip(output.shape, output.stride(), strict=True)
    even = all(step == next_step * size for (_, step), (size, next_step) in itertools.pairwise(outer))
    return output.view(-1, output.shape[-1]) if even else None
