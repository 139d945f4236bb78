"""Adapters onto a ComfyUI model: our placement first, ComfyUI's own names for what is left."""

from __future__ import annotations

import dataclasses
import logging
from typing import NamedTuple

from ....lyco_core.adapter_set import AdapterSet
from ....lyco_core.architectures import named_as
from ....lyco_core.errors import PlacementError, Remedy, about_file
from ....lyco_core.exclusion import exclusion
from ....lyco_core.inspect import describe_match, inspect_file
from ....lyco_core.load import AdapterFile
from ....lyco_core.model import Model
from ....lyco_core.names import weight_names
from ....lyco_core.placed import Placed
from ....lyco_core.placement import Placement
from ....lyco_core.selection import EVERYTHING, Selection
from ..files import adapter_path, cached_adapter_set
from ..page.matched import matched
from .beside import MODES, Division, divide, put_beside
from .patch import LycoPatch
from .stock import StockMatch, match_by_names, put, require_apart, their_names, weight_key
from .weights import weight_shapes

log = logging.getLogger("lyco")


@dataclasses.dataclass(frozen=True)
class Loaded:
    """What *Load LoHa/LoKr* returns."""

    model: object
    clip: object | None
    report: str
    matched: tuple[dict, ...] = ()
    """What matched of each file, as the web extension draws it."""

    @property
    def shown(self) -> dict:
        """The node's `ui` output."""
        return {"lyco_match": list(self.matched)}


class Known(NamedTuple):
    """A file that is looked at before it is loaded."""

    file: AdapterFile
    """Open."""
    outline: AdapterSet
    """Its architecture told by the model."""


def load_onto(
    model,
    clip,
    name: str,
    strength: float,
    *,
    partial: bool,
    selection: Selection = EVERYTHING,
    mode: str = MODES[1],
    scale: float | None = None,
    known: Known | None = None,
) -> Loaded:
    """Clones of `model` and `clip` with the file's adapters at `strength`.

    Args:
        model: a ModelPatcher.
        clip: a CLIP, or None.
        name: of a file in models/loras.
        partial: apply what matches and warn about the rest, instead of refusing.
        selection: which modules, and how strongly beside `strength`.
        mode: one of `beside.MODES`.
        scale: instead of what the file's alphas say.
        known: see `match_model`.

    Raises:
        LycoError: the file is bad, or does not fit (all of it that is selected, unless `partial`).
    """
    with about_file(adapter_path(name)):
        match = match_model(name, model, clip, selection, scale, known)
        groups = match.require(partial=partial)
        if strength == 0:
            text = "strength 0, nothing is applied"
            return Loaded(model, clip, f"{name}: {text}", (matched(match, applied=text),))
        patched, patched_clip = model.clone(), None if clip is None else clip.clone()
        report = [match.headline(strength), *match.lines()]
        applied = f"strength {strength:g}"
        scaled = {strength * multiplier: patches for multiplier, patches in groups.items()}
        patchers = [patched] if patched_clip is None else [patched, patched_clip.patcher]
        found = [apply(mode, patcher, scaled) for patcher in patchers]
        _require_all(scaled, found)
        for patcher, division in zip(patchers, found, strict=True):
            report += [*division.lines(), *division.cost(patcher)]
        if any(division.parts for division in found):
            applied += ", while sampling"
        _attach_metadata(match.placement.adapter_set, patched, patched_clip)
    return Loaded(patched, patched_clip, "\n".join(report), (matched(match, applied=applied),))


def inspect(name: str, model=None) -> tuple[str, list[dict]]:
    """What a file is, from its header, and what `model` would take of it: for people, and as the page draws it."""
    path = adapter_path(name)
    lines = inspect_file(path).lines()
    shown: list[dict] = []
    if model is not None:
        with about_file(path):
            match = match_model(name, model, None)
        lines += [f"{'model':<13} {line}" for line in match.lines()]
        shown.append(matched(match, applied="compared"))
    return "\n".join(lines), shown


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

    def require(self, *, partial: bool) -> dict[float, dict]:
        """What `add_patches` takes, by what the strength is to be multiplied with.

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
        groups: dict[float, dict] = {}
        for item, strength in chosen.items():
            target = place_of(item) if isinstance(item, Placed) else item
            groups.setdefault(strength, {})[target] = patches[target]
        return groups

    @property
    def rest_names(self) -> dict:
        """What the places that only ComfyUI's names tell go by."""
        ours = {place_of(placed) for placed in self.placement.placed}
        return {
            target: (*weight_names(weight_key(target), self.placement.prefix), *names)
            for target, names in self.rest.names.items()
            if target not in ours
        }

    @property
    def patches(self) -> dict:
        """All that has a place, selected or not: weight key, or (key, rows) -> patch."""
        patches = our_patches(self.placement)
        for target, patch in self.rest.patches.items():
            put(patches, target, patch, str(weight_key(target)))
        require_apart(patches)
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
    model,
    clip,
    selection: Selection = EVERYTHING,
    scale: float | None = None,
    known: Known | None = None,
) -> Match:
    """Find the place of everything in a file; nothing is changed.

    Args:
        scale: instead of what the file's alphas say; see `AdapterSet.with_scale`.
        known: what is known of the file already.
    """
    weights = model_weights(model)
    found = cached_adapter_set(name, known and known.file)
    placement = weights.place((named_as(found, known.outline) if known else found).with_scale(scale))
    theirs = their_names(placement, model, clip, weights) if selection and not placement.complete else None
    placement = placement.select(selection, theirs)
    rest = match_by_names(placement, model, clip, weights.shapes)
    read = placement.adapter_set.unrecognised.keys() - {*rest.unread}
    remaining = placement.without({*rest.modules, *read})
    return Match(name, placement, rest, remaining.left, problem(remaining, with_clip=clip is not None))


def model_weights(model) -> Model:
    """Keys and shapes of a ModelPatcher's weights; of quantized ones, the shape that they stand for."""
    return Model.of(weight_shapes(model.model))


def apply(mode: str, patcher, groups: dict[float, dict]) -> Division:
    """Give a clone, of a model or of a text encoder's, what of `groups` changes it; patches by strength.

    Raises:
        PlacementError: a weight that cannot be read would have to be written.
    """
    division = divide(mode, patcher, groups)
    if division.parts:
        put_beside(patcher, division.parts)
    for strength, patches in division.patches.items():
        if lost := patches.keys() - set(patcher.add_patches(patches, strength)):
            raise PlacementError(
                f"ComfyUI did not take {len(lost)} patches, e.g. {next(iter(lost))}; nothing is applied"
            )
    return division


def _require_all(groups: dict[float, dict], divisions: list[Division]) -> None:
    """Refuse if something went neither to the model nor to the text encoder."""
    done = {place for division in divisions for place in division.places}
    if lost := [place for patches in groups.values() for place in patches if place not in done]:
        raise PlacementError(f"ComfyUI has no weight for {len(lost)} patches, e.g. {lost[0]}; nothing is applied")


def our_patches(placement: Placement) -> dict:
    """What `add_patches` takes: weight key, or (key, (dimension, start, length)) for rows -> patch."""
    patches: dict = {}
    for piece in placement.placed:
        prefix = placement.adapter_set.prefixes[piece.module_path]
        put(patches, place_of(piece), LycoPatch.of(placement.part(piece), prefix), prefix)
    return patches


def place_of(piece: Placed):
    """A place as `add_patches` spells it."""
    return piece.key if piece.rows is None else (piece.key, (0, piece.rows[0], piece.rows[1] - piece.rows[0]))


def problem(remaining: Placement, *, with_clip: bool) -> str:
    """What of the file is left out and why, in one line; empty if nothing is."""
    prefixes = [remaining.adapter_set.prefixes[path] for path in remaining.homeless]
    text = remaining.problem()
    if not with_clip and any(prefix.startswith(("lora_te", "text_encoder")) for prefix in prefixes):
        text += "; it was trained on the text encoder too: connect CLIP"
    return text


def _attach_metadata(found: AdapterSet, patched, patched_clip) -> None:
    """As stock ComfyUI does: some nodes look for it."""
    if found.metadata:
        patched.set_attachments("lora_metadata", dict(found.metadata))
        if patched_clip is not None:
            patched_clip.patcher.set_attachments("lora_metadata", dict(found.metadata))
