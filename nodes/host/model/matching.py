"""Where all of an adapter file goes on a ComfyUI model: our placement first, ComfyUI's names for what is left."""

from __future__ import annotations

import dataclasses
import logging
import weakref
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import nn

from ....lyco_core.adapter_file import AdapterFile
from ....lyco_core.adapter_set import AdapterSet
from ....lyco_core.architectures import named_as
from ....lyco_core.errors import PlacementError, Remedy
from ....lyco_core.exclusion import exclusion
from ....lyco_core.formats.grammar import is_text_encoders
from ....lyco_core.inspection import describe_match
from ....lyco_core.model import Model
from ....lyco_core.names import weight_names
from ....lyco_core.placed import Placed
from ....lyco_core.placement import Placement
from ....lyco_core.selection import EVERYTHING, Selection
from ....lyco_core.text import counted
from ..files import cached_adapter_set
from ..protocols import CLIP, ModelPatcher
from .patch import LycoPatch
from .places import Change, Changes, Patches, Place, put, require_apart
from .stock import StockMatch, match_by_names, their_names
from .weights import held_shapes, packed_keys, weight_shapes

log = logging.getLogger("lyco")

_models: weakref.WeakKeyDictionary[nn.Module, tuple[Mapping[str, torch.Size], Model]] = weakref.WeakKeyDictionary()
"""A model in memory -> the shapes of what it held when it was asked what it is, and what it was."""


class OpenedFile(NamedTuple):
    """An adapter file that is open, before its numbers are read."""

    file: AdapterFile
    outline: AdapterSet
    """Its modules without their numbers, under the architecture that the model told."""


@dataclasses.dataclass(frozen=True)
class Match:
    """Everything in a file, and where on a model it goes."""

    name: str
    """The file's, in models/loras, or what adapters of no file are called."""
    placement: Placement
    rest: StockMatch
    left: tuple[str, ...]
    """Modules and keys that have no place."""
    left_out: str
    """Why they have none, in one line; empty if everything has a place."""

    def changes(self, *, partial: bool) -> Changes:
        """The change of every place that is selected, at its strength relative to that of the file.

        Raises:
            PlacementError: something has no place, unless `partial`; or nothing has.
            SelectionError: a pattern matches nothing, or nothing is left.
        """
        patches = self.patches
        rest_names = self.rest_names
        chosen = self.placement.chosen(rest_names)
        if not patches:
            nothing = "; ".join(["holds nothing that changes this model", *self.placement.adapter_set.left_out])
            raise PlacementError(self.left_out or nothing)
        if self.left_out and not partial:
            taken = [*(self.placement.names[placed] for placed in self.placement.placed), *rest_names.values()]
            pattern = exclusion(self.left, (name for names in taken for name in names))
            raise PlacementError(self.left_out, Remedy.LEAVE_OUT if pattern else None, pattern)
        if self.left_out:
            log.warning("%s: %s", self.name, self.left_out)
        changes: Changes = {}
        for item, strength in chosen.items():
            place = Place.of_placed(item) if isinstance(item, Placed) else item
            changes[place] = Change(patches[place], strength)
        return changes

    @property
    def rest_names(self) -> dict[Place, tuple[str, ...]]:
        """The names of each place that is found by ComfyUI's names alone."""
        ours = {Place.of_placed(placed) for placed in self.placement.placed}
        return {
            place: (*weight_names(place.key, self.placement.prefix), *names)
            for place, names in self.rest.names.items()
            if place not in ours
        }

    @property
    def patches(self) -> Patches:
        """All that has a place, selected or not."""
        patches = our_patches(self.placement)
        for where, patch in self.rest.patches.items():
            put(patches, where, patch, where.key)
        require_apart(patches.items())
        return patches

    def headline(self, how: str) -> str:
        """One line on the file: its family, its algorithms and `how` it is applied."""
        found = self.placement.adapter_set
        family = found.architecture
        kinds = ", ".join(f"{count} {title}" for title, count in found.titles.items())
        return ", ".join(filter(None, [f"{self.name}: {family.title}" if family else self.name, kinds, how]))

    def lines(self) -> list[str]:
        """How much matched, by which names, and what did not."""
        lines: list[str] = []
        if self.placement.placed or not self.rest.patches:
            lines += [line for line in describe_match(self.placement) if not line.startswith("left out")]
        if self.rest.exact:
            lines.append(f"{counted(len(self.rest.exact), 'module')} by ComfyUI's own names")
        if self.rest.stock:
            lines.append(f"{counted(len(self.rest.stock), 'weight')} by ComfyUI's own adapters")
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
    opened: OpenedFile | AdapterSet | None = None,
) -> Match:
    """Find the place of everything in a file; nothing is changed.

    Args:
        scale: instead of what the file's alphas say; see `AdapterSet.with_scale`.
        opened: the file, where it is open already; or adapters of no file, not identified.
    """
    weights = model_weights(model)
    placement = weights.place(_adapters(name, opened).with_scale(scale))
    theirs = their_names(placement, model, clip, weights) if selection and not placement.complete else None
    placement = placement.select(selection, theirs)
    rest = match_by_names(placement, model, clip, weights.shapes)
    read = placement.adapter_set.unrecognised.keys() - {*rest.unread}
    remaining = placement.without({*rest.modules, *read})
    return Match(name, placement, rest, remaining.left, problem(remaining, with_clip=clip is not None))


def _adapters(name: str, opened: OpenedFile | AdapterSet | None) -> AdapterSet:
    if isinstance(opened, AdapterSet):
        return opened
    found = cached_adapter_set(name, opened and opened.file)
    return named_as(found, opened.outline) if opened else found


def model_weights(model: ModelPatcher) -> Model:
    """Keys and shapes of a model's weights; of quantized ones, the shape that they stand for. Asked again only once
    the model holds others."""
    held = held_shapes(model.model)
    before, known = _models.get(model.model, (None, None))
    if known is None or before != held:
        known = Model.of(weight_shapes(model.model), packed=packed_keys(model.model))
        _models[model.model] = held, known
    return known


def our_patches(placement: Placement) -> Patches:
    """A patch for each piece that is placed."""
    patches: Patches = {}
    for piece in placement.placed:
        prefix = placement.adapter_set.prefixes[piece.module_path]
        put(patches, Place.of_placed(piece), LycoPatch.of(placement.part(piece), prefix), prefix)
    return patches


def problem(remaining: Placement, *, with_clip: bool) -> str:
    """What of the file is left out and why, in one line; empty if nothing is."""
    prefixes = [remaining.adapter_set.prefixes[path] for path in remaining.homeless]
    text = remaining.problem()
    if not with_clip and any(map(is_text_encoders, prefixes)):
        text += "; it was trained on the text encoder too: connect CLIP"
    return text
