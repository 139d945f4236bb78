"""The base's weights under the names of the result: what the changes of DoRA, OFT and others are computed from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import TracebackType

import torch
from torch import Tensor

from ..adapter_reader import check_finite
from ..adapters.swapped import halves_swapped
from ..architectures import Architecture
from ..errors import MergeError, PlacementError, about_file
from ..io import Checkpoint
from ..layouts import Layout, parameter_of
from ..model import model_of
from ..quantized.reading import read_weight
from .sources import Opened

__all__ = ["Base"]


class Base:
    """An open checkpoint, whose weights are read one at a time."""

    def __init__(self, path: str | os.PathLike[str], family: Architecture, layout: Layout) -> None:
        self._family = family
        self._layout: Layout = layout
        self._checkpoint = Checkpoint(path)
        try:
            with about_file(path):
                self._model, self._forms = model_of(self._checkpoint)
                ours = self._model.architecture
                if ours is not None and ours is not family:
                    raise PlacementError(
                        f"is a {ours.title} model, and the adapters are for {family.title}; give the checkpoint that "
                        "they were trained on"
                    )
        except BaseException:
            self._checkpoint.__exit__(None, None, None)
            raise

    def __enter__(self) -> Base:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._checkpoint.__exit__(kind, error, at)

    def changes(self, path: str, opened: Sequence[Opened], *, together: bool) -> list[Tensor]:
        """What the files change of a weight, each in float32: one after the other, summed up, or each for itself.

        Raises:
            LycoError: the base has no such weight, or one of another shape.
        """
        weight = self._weight(path)
        after = weight.clone()
        made: list[Tensor] = []
        for one in opened:
            with about_file(one.addend.source.path):
                for placed, share in one.changes[path]:
                    part = placed.part(one.adapter_set.adapters[placed.module_path])
                    part.add_to_(placed.band(after), one.strength * share)
            if not together:
                made.append((after - weight).float())
                after.copy_(weight)
        return made if not together else [(after - weight).float()]

    def _weight(self, path: str) -> Tensor:
        """A weight in float64, its rows in the order of the result's layout."""
        module, parameter = parameter_of(path)
        with about_file(self._checkpoint.path):
            targets = self._family.locate(module, self._layout, self._model.naming)
            if not targets:
                raise PlacementError(f"{path}: has no such weight; give the checkpoint that they were trained on")
            bands: list[Tensor] = []
            for target in sorted(targets, key=lambda target: target.source):
                rows = self._read(f"{self._model.prefix}{target.path}{parameter}")
                start, stop, of = target.rows
                band = rows[len(rows) * start // of : len(rows) * stop // of]
                bands.append(halves_swapped(band) if target.swapped else band)
            return torch.cat(bands).double()

    def _read(self, key: str) -> Tensor:
        if key in self._forms.refused:
            raise MergeError(f"{key}: is stored as {self._forms.refused[key]}, which cannot be read; give a bf16 one")
        if key not in self._checkpoint.holder:
            raise PlacementError(f"{key}: has no such weight; give the checkpoint that they were trained on")
        form = self._forms.forms.get(key)
        values = (
            self._checkpoint.holder[key].tensor(key) if form is None else read_weight(form, self._checkpoint.holder)
        )
        check_finite(key, values)
        return values
