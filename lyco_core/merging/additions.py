"""What a merge adds: one adapter file, placed on the weights of the base."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping

from ..adapter_file import AdapterFile
from ..adapter_reader import require_adapters, require_known
from ..adapter_set import AdapterSet
from ..errors import MergeError, PlacementError, Remedy, about_file
from ..exclusion import exclusion
from ..io import Checkpoint
from ..model import Model
from ..placed import Placed
from ..placement import Placement
from ..selection import weight_path
from ..text import shorten
from .options import MergeOptions, Source

__all__ = ["Addition", "add_file"]


@dataclasses.dataclass(frozen=True)
class Addition:
    """Everything of one adapter file that is added."""

    adapter_set: AdapterSet
    pieces: Mapping[str, list[tuple[Placed, float]]]
    """Weight key -> what changes it, and how strongly."""
    left_out: str = ""
    """What has no place and why; empty if everything has."""


def add_file(
    source: Source, base: Model, refused: Mapping[str, str], options: MergeOptions, checkpoint: Checkpoint
) -> Addition:
    """Place a file on the base, and read it.

    Raises:
        LycoError: the file is bad, or does not fit (all of it that is selected, unless `options.partial`).
    """

    def fitting(adapters: AdapterSet) -> tuple[Placement, str]:
        """Where it goes, and what is left out."""
        placement = base.place(adapters, options.selection)
        _require_mergeable(placement, base, refused, checkpoint)
        if not placement.placed and not placement.misfits:
            _require_related(placement.adapter_set, base, checkpoint)
        return placement, _left_out(placement, partial=options.partial)

    with about_file(source.path), AdapterFile(source.path) as file:
        outline = require_adapters(base.identify(file.outline, options.architecture))
        fitting(outline)  # before its numbers are read
        placement, left_out = fitting(file.read(outline))
        pieces: dict[str, list[tuple[Placed, float]]] = {}
        for key, changes in placement.by_weight.items():
            if strong := [(p, strength * source.strength) for p, strength in changes if strength * source.strength]:
                pieces[key] = strong
        return Addition(placement.adapter_set, pieces, left_out)


def _require_mergeable(placement: Placement, base: Model, refused: Mapping[str, str], checkpoint: Checkpoint) -> None:
    """Raise `MergeError` if something belongs on weights that numbers cannot be added to."""
    keys = [*placement.by_weight, *(m.key for m in placement.misfits)]
    bad = {key: refused[name] for key in keys if (name := weight_path(key, base.prefix)) in refused}
    if not bad and placement.homeless and refused:
        bad = {path: next(iter(refused.values())) for path in placement.homeless}
    if bad:
        key, title = next(iter(bad.items()))
        raise MergeError(
            f"{len(bad)} of its modules belong on weights of {os.path.basename(checkpoint.path)} that nothing can be "
            f"merged into ({key}: {title})",
            Remedy.UNMERGED,
        )


def _require_related(adapters: AdapterSet, base: Model, checkpoint: Checkpoint) -> None:
    """Say what is unknown, the adapter's family or the base's, where nothing has a place."""
    if base.architecture is None and not base.paths:
        raise PlacementError(
            f"{os.path.basename(checkpoint.path)} has no weights of a model; give the checkpoint that is to be changed"
        )
    if base.architecture is None:
        ours, theirs = shorten(list(adapters.prefixes.values())), shorten(sorted(base.paths))
        raise PlacementError(
            f"none of its modules ({ours}) is in {os.path.basename(checkpoint.path)}, a model of no known family "
            f"({theirs}); expected a checkpoint that has modules of these names, or one of a known family"
        )
    require_known(adapters)


def _left_out(placement: Placement, *, partial: bool) -> str:
    """What has no place and why; refused unless `partial`, and if nothing has one."""
    problem = placement.problem("the base")
    if not problem or (partial and placement.placed):
        return problem
    names = (name for placed in placement.placed for name in placement.names[placed])
    pattern = exclusion(placement.left, names) if placement.placed else ""
    raise PlacementError(problem, Remedy.LEAVE_OUT if pattern else None, pattern)
