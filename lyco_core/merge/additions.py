"""What a merge adds: one adapter file, placed on the weights of the base."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping

from ..adapter_set import AdapterSet
from ..errors import MergeError, PlacementError, Remedy, about_file
from ..exclusion import exclusion
from ..io import Checkpoint
from ..layouts import LAYOUTS
from ..load import Identifying, load_adapter_set, outline_adapter_set, require_known
from ..model_weights import ModelWeights
from ..names import Names, every_name, names_in, wanted
from ..placement import Placed, Placement, place
from ..selection import weight_path
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
    source: Source, base: ModelWeights, refused: Mapping[str, str], options: MergeOptions, checkpoint: Checkpoint
) -> Addition:
    """Place a file on the base, and read it.

    Raises:
        LycoError: the file is bad, or does not fit (all of it that is selected, unless `options.partial`).
    """
    with about_file(source.path):
        assert base.architecture is not None
        paths = base.paths if base.layout == "comfyui" else None
        telling: Identifying = {
            "architecture": options.architecture,
            "weights": paths,
            "prefer": base.architecture.id,
            "layout": base.layout,
        }
        outline = outline_adapter_set(source.path, **telling)
        _chosen(require_known(outline), base, refused, options, checkpoint)  # before its numbers are read
        placement, chosen, left_out = _chosen(
            load_adapter_set(source.path, **telling), base, refused, options, checkpoint
        )
        pieces: dict[str, list[tuple[Placed, float]]] = {}
        for placed, strength in chosen.items():
            if strength * source.strength != 0:
                pieces.setdefault(placed.key, []).append((placed, strength * source.strength))
        return Addition(placement.adapter_set, pieces, left_out)


def _chosen(
    adapters: AdapterSet,
    base: ModelWeights,
    refused: Mapping[str, str],
    options: MergeOptions,
    checkpoint: Checkpoint,
) -> tuple[Placement, Mapping[Placed, float], str]:
    """Where an adapter goes, what of it is wanted and how strongly, and what is left out."""
    placement = _placed(adapters, base)
    names = names_in(placement, base.prefix)
    placement = wanted(placement, options.selection, names)
    chosen = options.selection.choose({p: names[p] for p in placement.placed}, every_name(names))
    _require_mergeable(placement, chosen, base, refused, checkpoint)
    return placement, chosen, _left_out(placement, names, base, partial=options.partial)


def _placed(outline: AdapterSet, base: ModelWeights) -> Placement:
    """Where an adapter goes, in the layout that has a place for most of it."""
    # Families share names, so the base may have been taken for a sister of the adapter's in another layout.
    layouts = dict.fromkeys((base.layout, *LAYOUTS))
    placements = (place(outline, base.shapes, layout=layout, prefix=base.prefix) for layout in layouts)
    return max(placements, key=lambda placement: placement.modules)


def _require_mergeable(
    placement: Placement,
    chosen: Iterable[Placed],
    base: ModelWeights,
    refused: Mapping[str, str],
    checkpoint: Checkpoint,
) -> None:
    """Raise `MergeError` if something belongs on weights that numbers cannot be added to."""
    keys = [p.key for p in (*chosen, *placement.misfits)]
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


def _left_out(placement: Placement, names: Names, base: ModelWeights, *, partial: bool) -> str:
    """What has no place and why; refused unless `partial`, and if nothing has one."""
    problem = placement.problem()
    if not problem or (partial and placement.placed):
        return problem
    if placement.placed:
        pattern = exclusion(placement.left, (name for p in placement.placed for name in names[p]))
        raise PlacementError(problem, Remedy.LEAVE_OUT if pattern else None, pattern)
    ours, theirs = placement.adapter_set.architecture, base.architecture
    if placement.homeless and ours and theirs and ours is not theirs:
        problem = f"is an adapter for {ours.title}, the base is {theirs.title}; {problem}"
    raise PlacementError(problem)
