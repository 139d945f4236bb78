"""Which adapter goes onto which weight, on which rows: decided before any weight is touched."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Collection, Iterator, Mapping
from typing import TypeVar

import torch
from torch import Tensor

from .adapter_set import AdapterSet
from .adapters import Adapter, fits, is_outline, shape_text
from .architectures import Architecture
from .duplicates import duplicate_modules
from .errors import AdapterError, PlacementError, Remedy
from .exclusion import exclusion
from .formats.grammar import is_text_encoders
from .formats.suffixes import unread
from .layouts import BIAS, Layout, parameter_of
from .names import Names, every_name, names_in
from .own_names import OwnNames
from .placed import KEY_PREFIXES, WHOLE, Misfit, Placed, Shape, keeps_its_name, put, targets_in
from .selection import EVERYTHING, Selection
from .text import shorten

__all__ = ["Placement", "place"]

T = TypeVar("T")

_WIDE = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""What numbers are added to in place: smaller ones are codes that a scale makes numbers of, or may be."""


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where an `AdapterSet` goes; `placed` alone is what may be applied."""

    adapter_set: AdapterSet
    placed: tuple[Placed, ...]
    homeless: tuple[str, ...]
    """Module paths for which the model, or the layout, has no weight."""
    misfits: tuple[Misfit, ...]
    where: str = "the model"
    """What the homeless have no place in."""
    prefix: str = KEY_PREFIXES["comfyui"]
    """What the keys of the model's weights begin with."""
    family: Architecture | None = None
    """The model's, where it is known."""
    selection: Selection = EVERYTHING
    """What of `placed` takes part, and how strongly."""
    known_names: Names | None = None
    """`names`, where a selection has left something out since; None: the names of what is here."""

    @property
    def modules(self) -> int:
        """How many modules have a place."""
        return len({p.module_path for p in self.placed})

    @property
    def complete(self) -> bool:
        """Whether everything in the file has a place."""
        return not self.left

    @property
    def left(self) -> tuple[str, ...]:
        """What has no place: module paths, and keys of no adapter."""
        return (*self.homeless, *(m.module_path for m in self.misfits), *self.adapter_set.unrecognised_keys)

    @functools.cached_property
    def names(self) -> Names:
        """What everything in the file goes by, whether it takes part or not."""
        return names_in(self) if self.known_names is None else self.known_names

    def problem(self, model: str = "the model") -> str:
        """What has no place and why, in one line; empty if everything has.

        Args:
            model: what the person calls it.
        """
        total = len(self.adapter_set.adapters)
        parts = [other] if (other := self.of_another_family(model)) else []
        if self.homeless:
            prefixes = [self.adapter_set.prefixes[path] for path in self.homeless]
            encoders = [prefix for prefix in prefixes if is_text_encoders(prefix)]
            if others := [prefix for prefix in prefixes if prefix not in encoders]:
                parts.append(f"{len(others)} of {total} modules are not in {self.where} ({shorten(others)})")
            if encoders:
                parts.append(f"{len(encoders)} of {total} modules are the text encoder's ({shorten(encoders)})")
        for first in self.misfits[:1]:
            parts.append(
                f"{len(self.misfits)} of {total} modules have another shape ({first.module_path}: the model's "
                f"weight is {list(first.expected)}, the adapter's {shape_text(first.found)})"
            )
        if keys := list(self.adapter_set.unrecognised_keys):
            parts.append(f"{len(keys)} keys belong to no adapter that is known here ({shorten(keys)})")
            parts += [f"among them are {other}" for other in unread(keys)]
        return "; ".join(parts)

    def of_another_family(self, model: str = "the model") -> str:
        """What says so, where nothing has a place for that reason; else empty."""
        ours, theirs = self.adapter_set.architecture, self.family
        if self.placed or not self.homeless or ours is None or theirs is None or ours is theirs:
            return ""
        return f"is an adapter for {ours.title}, {model} is {theirs.title}"

    def without(self, paths: Collection[str]) -> Placement:
        """A copy as if the file did not have `paths`: modules, or keys of no adapter."""
        unrecognised = {key: t for key, t in self.adapter_set.unrecognised.items() if key not in paths}
        return dataclasses.replace(
            self,
            adapter_set=dataclasses.replace(self.adapter_set, unrecognised=unrecognised),
            placed=tuple(p for p in self.placed if p.module_path not in paths),
            homeless=tuple(path for path in self.homeless if path not in paths),
            misfits=tuple(m for m in self.misfits if m.module_path not in paths),
        )

    def require_complete(self) -> Placement:
        """The placement itself; raises `PlacementError` if anything in the file has no place."""
        if not self.complete:
            pattern = exclusion(self.left, every_name({placed: self.names[placed] for placed in self.placed}))
            possible = bool(pattern and self.placed)
            raise PlacementError(self.problem(), Remedy.EXCLUDE if possible else None, pattern)
        return self

    def select(self, selection: Selection, more_names: Names | None = None) -> Placement:
        """A copy with a selection: what has no place is left out where it would take no part anyway.

        Args:
            more_names: what something that has no place goes by besides, in a host.

        Raises:
            SelectionError: a pattern takes too long.
        """
        if not selection:
            return self
        names = {**self.names, **(more_names or {})}
        strengths = selection.strengths({item: names[item] for item in self.left}) if self.left else {}
        kept = self.without({item for item, strength in strengths.items() if strength == 0})
        return dataclasses.replace(kept, selection=selection, known_names=names)

    def chosen(self, others: Mapping[T, Collection[str]] | None = None) -> dict[Placed | T, float]:
        """What takes part -> the multiplier of its strength, in the order of `placed`.

        Args:
            others: what has a place of another kind, in a host -> what it goes by.

        Raises:
            SelectionError: a pattern matches nothing or takes too long, or nothing is left.
        """
        others = others or {}
        if not self.selection:
            return dict.fromkeys((*self.placed, *others), 1.0)
        own = {placed: self.names[placed] for placed in self.placed}
        names: dict[Placed | T, Collection[str]] = {**own, **others}
        return self.selection.choose(names, every_name(self.names))

    @functools.cached_property
    def by_weight(self) -> Mapping[str, list[tuple[Placed, float]]]:
        """Weight key -> what changes it, one after the other, and how strongly; raises as `chosen`."""
        grouped: dict[str, list[tuple[Placed, float]]] = {}
        for placed, strength in self.chosen().items():
            grouped.setdefault(placed.key, []).append((placed, strength))
        return grouped

    def part(self, placed: Placed) -> Adapter:
        """The adapter, or the piece of it, that goes there."""
        return placed.part(self.adapter_set.adapters[placed.module_path])

    def filled(self, placed: Placed) -> Adapter:
        """`part`, which has its numbers; raises `AdapterError` if the set is an outline."""
        part = self.part(placed)
        if is_outline(part):
            raise AdapterError(f"{placed.module_path}: its numbers are not read; load the file, not its outline")
        return part

    def apply_(self, state_dict: Mapping[str, Tensor], strength: float = 1.0) -> None:
        """Change the weights of a state dict in place, all of them or none.

        What of a file has a place, where not all has, is `placement.without(placement.left)`.

        Raises:
            PlacementError: something has no place, or its weight is not in `state_dict` as numbers of its shape.
            AdapterError: the set is an outline, without numbers.
            SelectionError: see `chosen`.
        """
        self.require_complete()
        for weight, part, _ in self._changes(state_dict):
            part.add_to_(weight, 0.0)  # which changes nothing, and refuses what does not fit
        for weight, part, multiplier in self._changes(state_dict):
            part.add_to_(weight, strength * multiplier)

    def _changes(self, state_dict: Mapping[str, Tensor]) -> Iterator[tuple[Tensor, Adapter, float]]:
        """The rows of each weight, what changes them, and how strongly."""
        for key, changes in self.by_weight.items():
            weight = state_dict.get(key)
            if weight is None:
                raise PlacementError(f"{key}: is not among the weights to change; give the model's whole state dict")
            if weight.dtype not in _WIDE or not fits(changes[0][0].shape, tuple(weight.shape)):
                raise PlacementError(
                    f"{key}: is {list(weight.shape)} of {str(weight.dtype).removeprefix('torch.')}, expected "
                    f"{shape_text(changes[0][0].shape)} of float16, bfloat16, float32 or float64"
                )
            for placed, multiplier in changes:
                yield placed.band(weight.detach()), self.filled(placed), multiplier


def place(
    adapter_set: AdapterSet,
    shapes: Mapping[str, Shape] | None = None,
    *,
    layout: Layout = "comfyui",
    prefix: str | None = None,
) -> Placement:
    """Find the weight, and the rows of it, for each adapter; for a model's own weights see `Model.place`.

    Args:
        adapter_set: with its architecture identified; outlines will do. The result's lacks what is there twice.
        shapes: key -> shape of the model's weights; None: from the architecture alone, each weight as large as the
            adapters say.
        layout: whose names the weights have.
        prefix: what their keys begin with; by default `KEY_PREFIXES`.

    Raises:
        AdapterError: two modules contradict each other; see `duplicates`.
    """
    prefix = KEY_PREFIXES[layout] if prefix is None else prefix
    known: dict[str, Shape] = {} if shapes is None else dict(shapes)
    own = OwnNames(known, prefix)
    placed: list[Placed] = []
    homeless: list[str] = []
    misfits: list[Misfit] = []
    for path, adapter in adapter_set.adapters.items():
        parameter = parameter_of(path)[1]
        targets = [(t, f"{prefix}{t.path}{parameter}") for t in targets_in(adapter_set, path, layout)]
        by_name = not targets or (shapes is not None and any(key not in shapes for _, key in targets))
        if by_name:
            spelled = adapter_set.prefixes[path] + (BIAS if parameter == BIAS else "")
            targets = [(WHOLE, key) for key in own.keys(path, spelled)]
        if not targets and shapes is None and keeps_its_name(adapter_set, path, layout):
            targets = [(WHOLE, f"{prefix}{path}{'' if parameter == BIAS else parameter}")]
        if len(targets) != 1 and by_name:
            homeless.append(path)
            continue
        found = [put(path, adapter, target, key, known, by_name=by_name) for target, key in targets]
        if bad := next((f for f in found if isinstance(f, Misfit)), None):
            misfits.append(bad)
        else:
            placed += (f for f in found if isinstance(f, Placed))
    where = f"the {layout} layout" if shapes is None else "the model"
    idle = duplicate_modules(placed, adapter_set)
    counted = tuple(piece for piece in placed if piece.module_path not in idle)
    return Placement(adapter_set.without(idle), counted, tuple(homeless), tuple(misfits), where, prefix)
