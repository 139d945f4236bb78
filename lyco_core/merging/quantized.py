"""A weight that the base keeps in a form of its own: changed and rounded again by that form, or written as numbers."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from ..adapters import OnBase
from ..errors import MergeError
from ..io.reader import SafetensorsFile
from ..quantized import Form, RoleTensors
from ..quantized.new import MARKER
from ..quantized.reading import bands, key_of, read_fixed, read_rows
from ..quantized.rounding import generator_for, largest
from ..scratch import scratch
from .survival import Tally
from .weight import Weight, on_processor

__all__ = ["Dequantized", "Quantized", "Requantized"]

UNSCALABLE = "the weight holds numbers that are NaN, infinite or too large for its scale; it cannot be scaled"

MEASURED = 8
"""One of so many bands of a weight is measured: what rounding leaves of the others is much the same."""


@dataclasses.dataclass(frozen=True)
class Dequantized(Weight):
    """A weight that the base keeps in a form, and that is written as plain numbers of `dtype`."""

    form: Form
    files: Mapping[str, SafetensorsFile]
    fixed: RoleTensors
    """The form's tensors that all rows share, as bytes."""

    @classmethod
    def of(cls, weight: Weight, form: Form, files: Mapping[str, SafetensorsFile]) -> Dequantized:
        """A weight with what it takes to read it."""
        own = {field.name: getattr(weight, field.name) for field in dataclasses.fields(Weight)}
        return cls(**own, form=form, files=files, fixed=read_fixed(form, files, weight.device))

    def bands(self) -> Iterator[tuple[int, int]]:
        """start:stop of what is computed at a time, which begins where the form can be cut."""
        whole = any(piece.unsplit for piece in self.pieces)
        yield from [(0, self.rows)] if whole else bands(self.rows, self.columns, self.form.step, self.device)

    def _read(self, start: int, stop: int) -> Tensor:
        return self.form.straighten(self._rows(start, stop), self.fixed)

    def _rows(self, start: int, stop: int) -> Tensor:
        return read_rows(self.form, self.files, start, stop, self.fixed, self.device)


@dataclasses.dataclass(frozen=True)
class Requantized(Dequantized):
    """A weight that is written in the form that the base has it in; what that leaves of the change is measured."""

    name: str = ""
    """What the weight is called in reports."""
    tally: Tally = dataclasses.field(default_factory=Tally)

    def bands(self) -> Iterator[tuple[int, int]]:
        """The whole weight where one scale depends on all of it; it is then computed twice."""
        yield from [(0, self.rows)] if self.form.rescaled else self._cut()

    def _cut(self) -> Iterator[tuple[int, int]]:
        """start:stop of what is in memory at a time."""
        return super().bands()

    def _stored(self, start: int, stop: int) -> Iterator[tuple[str, int, Tensor]]:
        fixed = dict(self.fixed)
        if self.form.rescaled:
            shared = self._shared()
            if not all(bool(torch.isfinite(part).all()) for part in shared.values()):
                raise MergeError(UNSCALABLE)
            yield from ((key_of(self.form, role), 0, on_processor(part)) for role, part in shared.items())
            fixed |= shared
        for first, last in self._cut() if self.form.rescaled else [(start, stop)]:
            yield from self._rounded(first, last, fixed)

    def _shared(self) -> dict[str, Tensor]:
        """The parts that depend on the whole weight."""
        if (sample := self.form.sample) is None:
            return self.form.scale_of(self._peak())
        seen = [self._turned(*band)[sample[(sample >= band[0]) & (sample < band[1])] - band[0]] for band in self._cut()]
        return self.form.table_of(torch.cat(seen))

    def _peak(self) -> Tensor:
        peaks = [largest(self._turned(*band)) for band in self._cut()]
        if not all(map(math.isfinite, peaks)):  # max() alone would pass over a NaN
            raise MergeError(UNSCALABLE)
        return torch.full((), max(peaks), device=self.device)

    def _rounded(self, start: int, stop: int, fixed: RoleTensors) -> Iterator[tuple[str, int, Tensor]]:
        generator = generator_for(self.seed, self.key, start, self.device)
        if start // max(stop - start, 1) % MEASURED:
            parts = self.form.encode(self._finite(self._turned(start, stop)), fixed, generator)
        else:
            values, change = self._turned_apart(start, stop)
            wanted = scratch("wanted", values.shape, device=self.device).copy_(self._finite(values))
            size = float(torch.dot(wanted.view(-1), wanted.view(-1)))
            parts = self.form.encode(values, fixed, generator)
            error = self.form.decode({**fixed, **parts})[: stop - start].sub_(wanted)
            if not self.form.isometric:
                error, change = (self.form.straighten(tensor, fixed) for tensor in (error, change))
            self.tally.add(self.name, change, error, size)
        if any(part.dtype.itemsize > 1 and not bool(torch.isfinite(part).all()) for part in parts.values()):
            raise MergeError(UNSCALABLE)
        for role, part in parts.items():
            yield key_of(self.form, role), self.form.place(role, start, stop)[0], on_processor(part)

    def _finite(self, values: Tensor) -> Tensor:
        """`values`; raises `MergeError` if the form cannot hold them."""
        if self.form.holds_nan or self.form.shows_nan or bool(torch.isfinite(values.sum())):
            return values
        if not bool(torch.isfinite(values).all()):
            raise MergeError(UNSCALABLE)
        return values

    def _turned(self, start: int, stop: int) -> Tensor:
        """New rows in the form's basis."""
        if not self.form.upright:
            return self._turned_apart(start, stop)[0]
        return self._summed(start, stop) if self.form.holds_nan else self._added(start, stop)

    def _turned_apart(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """(new rows, what was added to the old ones) in the form's basis."""
        values = self._rows(start, stop)
        change = scratch("change", values.shape, device=self.device).zero_()
        base: Tensor | None = None
        if any(isinstance(piece.adapter, OnBase) for piece in self.pieces):
            base = self.form.straighten(scratch("base", values.shape, device=self.device).copy_(values), self.fixed)
            change.copy_(base)
        for piece in self.pieces:
            piece.add_to_(change, start)
        if base is not None:
            change.sub_(base)
        change = self.form.turn(change, self.fixed)
        return values.add_(change), change


@dataclasses.dataclass(frozen=True)
class Quantized(Requantized):
    """A weight that the base has as plain numbers, and that is written in a form: summed, then rounded once."""

    @classmethod
    def new(cls, weight: Weight, form: Form) -> Quantized:
        """A weight, and the form that it is given."""
        own = {field.name: getattr(weight, field.name) for field in dataclasses.fields(Weight)}
        return cls(**own, form=form, files={}, fixed={})

    def _stored(self, start: int, stop: int) -> Iterator[tuple[str, int, Tensor]]:
        if start == 0:
            marker = torch.frombuffer(bytearray(json.dumps(self.form.found.said).encode()), dtype=torch.uint8)
            yield key_of(self.form, MARKER), 0, marker
        yield from super()._stored(start, stop)

    def _read(self, start: int, stop: int) -> Tensor:
        return Weight._read(self, start, stop)

    def _turned(self, start: int, stop: int) -> Tensor:
        return self.form.turn(self._added(start, stop).to(torch.float32), self.fixed)

    def _turned_apart(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        before = self._read(start, stop)
        change = scratch("change", before.shape, device=self.device).copy_(before).neg_()
        values = self._added(start, stop).to(torch.float32)
        turned = self.form.turn(change.add_(values), self.fixed)
        change = scratch("turned change", before.shape, device=self.device).copy_(turned)
        return self.form.turn(values, self.fixed), change
