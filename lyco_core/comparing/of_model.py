"""The norms of a model's weights, which a file's changes are held against."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from ..adapter_set import AdapterSet
from ..checkpoint_weights import CheckpointWeights
from ..errors import PlacementError
from ..placed import Placed
from .strips import paths_in, pattern_names

__all__ = ["ModelNorms"]

Progress = Callable[[int, int], None]


class ModelNorms:
    """A checkpoint whose weights are read when a file changes them, once, of whatever form they are stored in.

    Of each only the norm of every row is kept: a module may change some rows of a weight alone.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = path
        self._rows: dict[str, Tensor] = {}

    def of(self, raw: AdapterSet, progress: Progress = lambda done, total: None) -> dict[str, float]:
        """‖W‖ of the rows that each module changes, under the names of `pattern_names`; of those that have a place.

        Args:
            raw: a file's adapters, not identified.
            progress: called for each weight with how many are read, and of how many; what it raises ends it.

        Raises:
            LycoError: the model is of another family, or is damaged.
        """
        with CheckpointWeights(self._path) as weights:
            placement = weights.model.place(raw)
            if not placement.placed:
                raise PlacementError(placement.of_another_family() or placement.problem())
            missing = [key for key in dict.fromkeys(placed.key for placed in placement.placed) if key not in self._rows]
            for done, key in enumerate(missing):
                progress(done, len(missing))
                self._rows[key] = _norms_of_rows(weights.read(key))
            weights.checkpoint.require_unchanged()
        raw_paths = paths_in(raw, placement.adapter_set)
        norms: dict[str, list[float]] = {}
        for placed in placement.placed:
            norms.setdefault(raw_paths[placed.module_path], []).append(self._norm(placed))
        names = pattern_names(raw)
        return {name: math.hypot(*norms[path]) for name, path in names.items() if path in norms}

    def _norm(self, placed: Placed) -> float:
        return float(placed.band(self._rows[placed.key]).square().sum().sqrt())


def _norms_of_rows(weight: Tensor) -> Tensor:
    """In float64; those of a vector are its numbers."""
    return cast("Tensor", torch.linalg.vector_norm(weight.reshape(len(weight), -1), dim=1)).double()
