"""Adapters onto a ComfyUI model: all that matches, as patches or beside the weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

from ....lyco_core.adapter_set import AdapterSet
from ....lyco_core.errors import PlacementError, about_file
from ....lyco_core.inspection import inspect_file
from ....lyco_core.selection import EVERYTHING, Selection
from ..files import adapter_path
from ..protocols import CLIP, ModelPatcher
from .beside import MODES, Division, divide, put_beside
from .matching import Match, OpenedFile, match_model
from .places import Change, Place, add_changes, scaled


@dataclasses.dataclass(frozen=True)
class Loaded:
    """What *Load LoHa/LoKr* returns."""

    model: ModelPatcher
    clip: CLIP | None
    report: str
    applied: tuple[Applied, ...] = ()
    """What matched of each file."""


class Applied(NamedTuple):
    """What matched of a file."""

    match: Match
    how: str
    """How it was applied, in a few words."""


def load_onto(
    model: ModelPatcher,
    clip: CLIP | None,
    name: str,
    strength: float,
    *,
    partial: bool,
    selection: Selection = EVERYTHING,
    mode: str = MODES[1],
    scale: float | None = None,
    opened: OpenedFile | None = None,
    clip_strength: float | None = None,
) -> Loaded:
    """Clones of `model` and `clip` with the file's adapters at `strength`.

    Args:
        name: of a file in models/loras.
        partial: apply what matches and warn about the rest, instead of refusing.
        selection: which modules, and how strongly beside `strength`.
        mode: one of `beside.MODES`.
        scale: instead of what the file's alphas say.
        opened: see `match_model`.
        clip_strength: of what is for the text encoder, where that is another one.

    Raises:
        LycoError: the file is bad, or does not fit (all of it that is selected, unless `partial`).
    """
    with about_file(adapter_path(name)):
        match = match_model(name, model, clip, selection, scale, opened)
        changes = match.changes(partial=partial)
        for_clip = strength if clip_strength is None else clip_strength
        if strength == for_clip == 0:
            text = "strength 0, nothing is applied"
            return Loaded(model, clip, f"{name}: {text}", (Applied(match, text),))
        patched, patched_clip = model.clone(), None if clip is None else clip.clone()
        how = f"strength {strength:g}" + (f", text encoder {for_clip:g}" if for_clip != strength else "")
        report = [match.headline(how), *match.lines()]
        parts = [(patched, strength), *([] if patched_clip is None else [(patched_clip.patcher, for_clip)])]
        found = [(apply if much else divide)(mode, patcher, scaled(changes, much)) for patcher, much in parts]
        _require_all(changes, found)
        applied = [(patcher, division) for (patcher, much), division in zip(parts, found, strict=True) if much]
        for patcher, division in applied:
            report += [*division.lines(), *division.cost(patcher)]
        if any(division.parts for _, division in applied):
            how += ", while sampling"
        _attach_metadata(match.placement.adapter_set, patched, patched_clip)
    return Loaded(patched, patched_clip, "\n".join(report), (Applied(match, how),))


def inspect(name: str, model: ModelPatcher | None = None) -> tuple[str, tuple[Applied, ...]]:
    """The report on what a file is, from its header, and on what `model` would take of it; and the latter's match."""
    path = adapter_path(name)
    lines = inspect_file(path).lines()
    compared: tuple[Applied, ...] = ()
    if model is not None:
        with about_file(path):
            match = match_model(name, model, None)
        lines += [f"{'model':<13} {line}" for line in match.lines()]
        compared = (Applied(match, "compared"),)
    return "\n".join(lines), compared


def apply(mode: str, patcher: ModelPatcher, changes: Mapping[Place, Change]) -> Division:
    """Apply what of `changes` is for a clone of a model or of a text encoder.

    Raises:
        PlacementError: a weight that cannot be read would have to be written.
    """
    division = divide(mode, patcher, changes)
    if division.parts:
        put_beside(patcher, division.parts)
    add_changes(patcher, division.patched)
    return division


def _require_all(changes: Mapping[Place, Change], divisions: list[Division]) -> None:
    """Refuse if something went neither to the model nor to the text encoder."""
    done = {place for division in divisions for place in division.places}
    if lost := [place.patch_key for place in changes if place not in done]:
        raise PlacementError(f"ComfyUI has no weight for {len(lost)} patches, e.g. {lost[0]}; nothing is applied")


def _attach_metadata(found: AdapterSet, patched: ModelPatcher, patched_clip: CLIP | None) -> None:
    """Attach the file's metadata to the model, as ComfyUI's own loader does: some nodes look for it."""
    if found.metadata:
        patched.set_attachments("lora_metadata", dict(found.metadata))
        if patched_clip is not None:
            patched_clip.patcher.set_attachments("lora_metadata", dict(found.metadata))
