"""Adapters onto a ComfyUI model: our placement first, ComfyUI's own names for what is left."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import NamedTuple

from ....lyco_core.adapter_set import AdapterSet
from ....lyco_core.architectures import identify
from ....lyco_core.errors import PlacementError, Remedy, about_file
from ....lyco_core.exclusion import exclusion
from ....lyco_core.inspect import describe_match, inspect_file
from ....lyco_core.model_weights import ModelWeights, describe_weights
from ....lyco_core.names import Names, every_name, names_in, wanted, weight_names
from ....lyco_core.placement import Placement, place
from ....lyco_core.selection import EVERYTHING, Selection
from ..files import adapter_path, cached_adapter_set
from ..protocols import CLIP, ModelPatcher
from .beside import MODES, Division, divide, put_beside
from .patch import LycoPatch
from .places import Change, Changes, Patches, Place, add_changes, put, require_apart, scaled
from .stock import StockMatch, match_by_names, their_names
from .weights import weight_shapes

log = logging.getLogger("lyco")


@dataclasses.dataclass(frozen=True)
class Loaded:
    """What *Load LoHa/LoKr* returns."""

    model: ModelPatcher
    clip: CLIP | None
    report: str
    applied: tuple[Applied, ...] = ()
    """Of each file."""


class Applied(NamedTuple):
    """What matched of a file."""

    match: Match
    how: str
    """In a few words."""


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
) -> Loaded:
    """Clones of `model` and `clip` with the file's adapters at `strength`.

    Args:
        name: of a file in models/loras.
        partial: apply what matches and warn about the rest, instead of refusing.
        selection: which modules, and how strongly beside `strength`.
        mode: one of `beside.MODES`.
        scale: instead of what the file's alphas say.

    Raises:
        LycoError: the file is bad, or does not fit (all of it that is selected, unless `partial`).
    """
    with about_file(adapter_path(name)):
        match = match_model(name, model, clip, selection, scale)
        changes = scaled(match.require(partial=partial), strength)
        if strength == 0:
            text = "strength 0, nothing is applied"
            return Loaded(model, clip, f"{name}: {text}", (Applied(match, text),))
        patched, patched_clip = model.clone(), None if clip is None else clip.clone()
        report = [match.headline(strength), *match.lines()]
        how = f"strength {strength:g}"
        patchers = [patched] if patched_clip is None else [patched, patched_clip.patcher]
        found = [apply(mode, patcher, changes) for patcher in patchers]
        _require_all(changes, found)
        for patcher, division in zip(patchers, found, strict=True):
            report += [*division.lines(), *division.cost(patcher)]
        if any(division.parts for division in found):
            how += ", while sampling"
        _attach_metadata(match.placement.adapter_set, patched, patched_clip)
    return Loaded(patched, patched_clip, "\n".join(report), (Applied(match, how),))


def inspect(name: str, model: ModelPatcher | None = None) -> tuple[str, tuple[Applied, ...]]:
    """What a file is, from its header, and what `model` would take of it."""
    path = adapter_path(name)
    lines = inspect_file(path).lines()
    compared: tuple[Applied, ...] = ()
    if model is not None:
        with about_file(path):
            match = match_model(name, model, None)
        lines += [f"{'model':<13} {line}" for line in match.lines()]
        compared = (Applied(match, "compared"),)
    return "\n".join(lines), compared


@dataclasses.dataclass(frozen=True)
class Match:
    """Everything in a file, and where on a model it goes."""

    name: str
    """The file's, in models/loras."""
    placement: Placement
    rest: StockMatch
    left: tuple[str, ...]
    """Modules and keys that have no place."""
    left_out: str
    """Why, in one line; empty if everything has one."""
    prefix: str
    """What the keys of the model's weights begin with."""
    selection: Selection
    names: Names
    """What everything in the file goes by, selected or not."""

    def require(self, *, partial: bool) -> Changes:
        """What is selected, at what its strength is to be multiplied with.

        Raises:
            PlacementError: something has no place, unless `partial`; or nothing has.
            SelectionError: a pattern matches nothing, or nothing is left.
        """
        patches = self.patches
        names = {place: (*weight_names(place.key, self.prefix), *self.rest.names.get(place, ())) for place in patches}
        for placed in self.placement.placed:
            names[Place.of_placed(placed)] = self.names[placed]
        chosen = self.selection.choose(names, every_name(self.names))
        if not patches:
            nothing = "; ".join(["holds nothing that changes this model", *self.placement.adapter_set.left_out])
            raise PlacementError(self.left_out or nothing)
        if self.left_out and not partial:
            pattern = exclusion(self.left, every_name(names))
            raise PlacementError(self.left_out, Remedy.LEAVE_OUT if pattern else None, pattern)
        if self.left_out:
            log.warning("%s: %s", self.name, self.left_out)
        return {place: Change(patches[place], strength) for place, strength in chosen.items()}

    @property
    def patches(self) -> Patches:
        """All that has a place, selected or not."""
        patches = our_patches(self.placement)
        for where, patch in self.rest.patches.items():
            put(patches, where, patch, where.key)
        require_apart(patches.items())
        return patches

    def headline(self, strength: float) -> str:
        """The file, its family, its algorithms."""
        found = self.placement.adapter_set
        family = found.architecture
        kinds = ", ".join(f"{count} {title}" for title, count in found.titles.items())
        return ", ".join(
            filter(None, [f"{self.name}: {family.title}" if family else self.name, kinds, f"strength {strength:g}"])
        )

    def lines(self) -> list[str]:
        """How much matched, by which names, and what did not."""
        lines: list[str] = []
        if self.placement.placed or not self.rest.patches:
            lines += [line for line in describe_match(self.placement) if not line.startswith("left out")]
        if self.rest.exact:
            lines.append(f"{len(self.rest.exact)} modules by ComfyUI's own names")
        if self.rest.stock:
            lines.append(f"{len(self.rest.stock)} weights by ComfyUI's own adapters")
        lines += [f"left out: {line}" for line in self.placement.adapter_set.left_out]
        if self.left_out:
            lines.append(f"left out: {self.left_out}")
        return lines


def match_model(
    name: str,
    model: ModelPatcher,
    clip: CLIP | None,
    selection: Selection = EVERYTHING,
    scale: float | None = None,
) -> Match:
    """Find the place of everything in a file; nothing is changed.

    Args:
        scale: instead of what the file's alphas say; see `AdapterSet.with_scale`.
    """
    weights = model_weights(model)
    prefer = weights.architecture.id if weights.architecture else None
    adapters = identify(cached_adapter_set(name).with_scale(scale), weights=weights.paths, prefer=prefer)
    placement = place(adapters, weights.shapes, prefix=weights.prefix)
    names = names_in(placement, weights.prefix)
    if selection and not placement.complete:
        names |= their_names(placement, names, model, clip, weights)
    placement = wanted(placement, selection, names)
    rest = match_by_names(placement, model, clip, weights.shapes)
    remaining = still_left(placement, rest)
    left_out = problem(remaining, weights, with_clip=clip is not None)
    return Match(name, placement, rest, remaining.left, left_out, weights.prefix, selection, names)


def model_weights(model: ModelPatcher) -> ModelWeights:
    """Keys and shapes of a model's weights; of quantized ones, the shape that they stand for."""
    return describe_weights(weight_shapes(model.model))


def apply(mode: str, patcher: ModelPatcher, changes: Mapping[Place, Change]) -> Division:
    """Give a clone, of a model or of a text encoder's, what of `changes` is for it.

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


def our_patches(placement: Placement) -> Patches:
    """All that is placed, as patches of ours."""
    patches: Patches = {}
    for piece in placement.placed:
        prefix = placement.adapter_set.prefixes[piece.module_path]
        patch = LycoPatch.of(piece.part(placement.adapter_set.adapters[piece.module_path]), prefix)
        put(patches, Place.of_placed(piece), patch, prefix)
    return patches


def still_left(placement: Placement, rest: StockMatch) -> Placement:
    """Without what ComfyUI's names have a place for after all."""
    found: AdapterSet = placement.adapter_set
    return dataclasses.replace(
        placement,
        adapter_set=dataclasses.replace(found, unrecognised={key: found.unrecognised[key] for key in rest.unread}),
        homeless=tuple(path for path in placement.homeless if path not in rest.modules),
        misfits=tuple(m for m in placement.misfits if m.module_path not in rest.modules),
    )


def problem(remaining: Placement, weights: ModelWeights, *, with_clip: bool) -> str:
    """What of the file is left out and why, in one line; empty if nothing is."""
    found, homeless = remaining.adapter_set, remaining.homeless
    text = remaining.problem()
    ours, theirs = found.architecture, weights.architecture
    if homeless and not remaining.placed and ours and theirs and ours is not theirs:
        text = f"is an adapter for {ours.title}, the model is {theirs.title}; {text}"
    if not with_clip and any(found.prefixes[path].startswith(("lora_te", "text_encoder")) for path in homeless):
        text += "; it was trained on the text encoder too: connect CLIP"
    return text


def _attach_metadata(found: AdapterSet, patched: ModelPatcher, patched_clip: CLIP | None) -> None:
    """As stock ComfyUI does: some nodes look for it."""
    if found.metadata:
        patched.set_attachments("lora_metadata", dict(found.metadata))
        if patched_clip is not None:
            patched_clip.patcher.set_attachments("lora_metadata", dict(found.metadata))
