"""The base's weights under the names of the result: what the changes of DoRA, OFT and others are computed from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import TracebackType

import torch
from torch import Tensor

from ..adapters.swapped import halves_swapped
from ..architectures import Architecture
from ..checkpoint_weights import CheckpointWeights
from ..errors import PlacementError, about_file
from ..layouts import Layout, parameter_of
from .sources import Opened

__all__ = ["Base"]


class Base:
    """An open checkpoint, whose weights are read one at a time."""

    def __init__(self, path: str | os.PathLike[str], family: Architecture, layout: Layout) -> None:
        self._family = family
        self._layout: Layout = layout
        self._weights = CheckpointWeights(path)
        ours = self._weights.model.architecture
        if ours is not None and ours is not family:
            self._weights.__exit__(None, None, None)
            with about_file(path):
                raise PlacementError(
                    f"is {ours.title}, and the adapters are for {family.title}; give the checkpoint that they "
                    "were trained on"
                )

    def __enter__(self) -> Base:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._weights.__exit__(kind, error, at)

    def changes(self, path: str, opened: Sequence[Opened], *, together: bool) -> list[Tensor]:
        """What the files change of a weight, each in float32: one after the other, summed up, or each for itself.

        Raises:
            LycoError: the base has no such weight, or one of another shape.
        """
        weight = self.weight(path)
        after = weight.clone()
        made: list[Tensor] = []
        for one in opened:
            with about_file(one.addend.source.path):
                for placed, share in one.changes[path]:
                    part = placed.part(one.adapters[placed.module_path])
                    part.add_to_(placed.band(after), one.strength * share)
            if not together:
                made.append((after - weight).float())
                after.copy_(weight)
        return made if not together else [(after - weight).float()]

    def weight(self, path: str) -> Tensor:
        """A weight in float64, its rows in the order of the result's layout."""
        module, parameter = parameter_of(path)
        model = self._weights.model
        targets = self._family.locate(module, self._layout, model.naming)
        if not targets:
            with about_file(self._weights.checkpoint.path):
                raise PlacementError(f"{path}: has no such weight; give the checkpoint that they were trained on")
        bands: list[Tensor] = []
        for target in sorted(targets, key=lambda target: target.source):
            rows = self._weights.read(f"{model.prefix}{target.path}{parameter}")
            start, stop, of = target.rows
            band = rows[len(rows) * start // of : len(rows) * stop // of]
            bands.append(halves_swapped(band) if target.swapped else band)
        return torch.cat(bands).double()
