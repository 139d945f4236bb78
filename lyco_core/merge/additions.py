"""What a merge adds: one adapter file, placed on the weights of the base."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping

from ..adapter_set import AdapterSet
from ..architectures import ARCHITECTURES
from ..errors import MergeError, PlacementError, about_file
from ..io import Checkpoint
from ..layouts import LAYOUTS
from ..load import Identifying, load_adapter_set, outline_adapter_set, require_known
from ..model_weights import ModelWeights
from ..placement import Placed, Placement, place
from ..selection import names_of, wanted, weight_path
from .options import MergeOptions, Source

__all__ = ["Addition", "add_file"]


@dataclasses.dataclass(frozen=True)
class Addition:
    """Everything of one adapter file that is added."""

    adapter_set: AdapterSet
    pieces: Mapping[str, list[tuple[Placed, float]]]
    """Weight key -> what changes it, and how strongly."""


def add_file(
    source: Source, base: ModelWeights, refused: Mapping[str, str], options: MergeOptions, checkpoint: Checkpoint
) -> Addition:
    """Place a file on the base, and read it.

    Raises:
        LycoError: the file is bad, or does not fit; all that does not is listed.
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
        _placed(require_known(outline), base, refused, options, checkpoint)  # before its numbers are read
        placement = _placed(load_adapter_set(source.path, **telling), base, refused, options, checkpoint)
        names = {placed: names_of(placed, base.prefix) for placed in placement.placed}
        pieces: dict[str, list[tuple[Placed, float]]] = {}
        for placed, strength in options.selection.choose(names, placement.homeless).items():
            if strength * source.strength != 0:
                pieces.setdefault(placed.key, []).append((placed, strength * source.strength))
        return Addition(placement.adapter_set, pieces)


def _placed(
    outline: AdapterSet, base: ModelWeights, refused: Mapping[str, str], options: MergeOptions, checkpoint: Checkpoint
) -> Placement:
    """Where an adapter goes; refused unless all of it that is wanted has a place that can be merged into."""
    # Families share names, so the base may have been taken for a sister of the adapter's in another layout.
    layouts = dict.fromkeys((base.layout, *LAYOUTS))
    placements = (place(outline, base.shapes, layout=layout, prefix=base.prefix) for layout in layouts)
    placement = max(placements, key=lambda placement: placement.modules)
    placement = wanted(placement, options.selection, base.prefix)
    targets = {p.key: p.module_path for p in (*placement.placed, *placement.misfits)}
    bad = {key: refused[name] for key in targets if (name := weight_path(key, base.prefix)) in refused}
    if not bad and placement.homeless and refused:
        bad = {path: next(iter(refused.values())) for path in placement.homeless}
    if bad:
        key, title = next(iter(bad.items()))
        raise MergeError(
            f"{len(bad)} of its modules belong on weights of {os.path.basename(checkpoint.path)} that nothing can be "
            f"merged into ({key}: {title}); merge into the bf16, fp16 or fp8 checkpoint that it was made from and "
            "quantize the result, or load the adapter with Load LoHa/LoKr"
        )
    ours, theirs = ARCHITECTURES.get(outline.architecture or ""), base.architecture
    if placement.homeless and not placement.placed and ours and theirs and ours is not theirs:
        raise PlacementError(f"is an adapter for {ours.title}, the base is {theirs.title}; {placement.problem()}")
    return placement.require_complete()
