"""Adapters onto a ComfyUI model: all that matches, as patches or beside the weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

from ....lyco_core.adapter_set import AdapterSet
from ....lyco_core.errors import PlacementError, about_file
from ....lyco_core.inspection import inspect_file
from ....lyco_core.selection import EVERYTHING, Selection
from ....lyco_core.text import shorten
from ..files import adapter_path
from ..protocols import CLIP, ModelPatcher
from .beside import MODES, Division, Layer, divide, put_beside
from .kept_passes import forget_around, forget_each_pass
from .matching import Match, OpenedFile, match_model
from .places import Change, Place, add_changes, scaled
from .schedule import Schedule


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
    opened: OpenedFile | AdapterSet | None = None,
    clip_strength: float | None = None,
    schedule: Schedule | None = None,
) -> Loaded:
    """Clones of `model` and `clip` with the file's adapters at `strength`.

    Args:
        name: of a file in models/loras, or what adapters of no file are called.
        partial: apply what matches and warn about the rest, instead of refusing.
        selection: which modules, and how strongly beside `strength`.
        mode: one of `beside.MODES`.
        scale: instead of what the file's alphas say.
        opened: see `match_model`.
        clip_strength: of what is for the text encoder, where that is another one.
        schedule: what the strength on the model is multiplied by over the steps; beside its weights.

    Raises:
        LycoError: the file is bad, or does not fit (all of it that is selected, unless `partial`).
    """
    with about_file(name if isinstance(opened, AdapterSet) else adapter_path(name)):
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
        found = [
            _put(mode, patcher, changes, much, schedule if patcher is patched else None) for patcher, much in parts
        ]
        _require_all(changes, found)
        applied = [(patcher, division) for (patcher, much), division in zip(parts, found, strict=True) if much]
        for patcher, division in applied:
            report += [*division.lines(), *division.cost(patcher)]
        if any(division.parts for _, division in applied):
            how += ", while sampling"
        if schedule is not None:
            how += f", over the steps {schedule}"
            report.append(f"strength over the steps: {schedule}")
        _attach_metadata(match.placement.adapter_set, patched, patched_clip)
    return Loaded(patched, patched_clip, "\n".join(report), (Applied(match, how),))


def _put(
    mode: str, patcher: ModelPatcher, changes: Mapping[Place, Change], strength: float, schedule: Schedule | None
) -> Division:
    """Apply what of `changes` is for a clone at `strength`, over the steps where there is a schedule; at 0 nothing."""
    at_strength = scaled(changes, strength)
    if strength == 0:
        return divide(mode, patcher, at_strength)
    if schedule is None:
        return apply(mode, patcher, at_strength)
    return apply_over_time(patcher, at_strength, schedule, mode)


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
        put_beside(patcher, Layer(division.parts))
    add_changes(patcher, division.patched)
    forget_around(patcher)
    return division


def apply_over_time(patcher: ModelPatcher, changes: Mapping[Place, Change], schedule: Schedule, mode: str) -> Division:
    """Apply what of `changes` is for a clone of a model beside its weights, where a schedule changes a number.

    Raises:
        PlacementError: something could only be patched.
    """
    if mode == MODES[1]:
        raise PlacementError(
            "a strength_schedule acts beside the weights, and the mode is 'patch the weights'; set mode to auto"
        )
    division = divide(MODES[2], patcher, changes)
    if division.patched:
        keys = shorten([place.key for place in division.patched])
        raise PlacementError(
            f"{len(division.patched)} weights ({keys}) are no linear module's, and can only be patched, which a "
            "strength_schedule does not; use Create Hook LoHa/LoKr with keyframes for this file, or leave them out by "
            "exclude"
        )
    put_beside(patcher, Layer(division.parts, schedule))
    forget_each_pass(patcher)
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
