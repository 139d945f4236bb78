"""The files that are combined: of one family, each of their modules on its place among the result's.

They are told by their outlines; a module's numbers are read when it is made.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from ..adapter_file import AdapterFile
from ..adapter_reader import require_known
from ..adapter_set import AdapterSet
from ..adapters import Adapter, OnBase, is_outline, times
from ..architectures import Architecture, identify
from ..conversion.modules import as_lora_where_uncut, exact_module, layout_for
from ..errors import ArchitectureError, LycoError, PlacementError, Remedy, about_file
from ..formats.grammar import is_text_encoders
from ..layouts import Layout
from ..modules_once import UNSEEN
from ..placed import Placed
from ..placement import place
from .options import Addend, CombineOptions

__all__ = ["Opened", "open_all"]


@dataclasses.dataclass(frozen=True)
class Opened:
    """One file, and where what takes part of it goes."""

    addend: Addend
    strength: float
    file: AdapterFile | None
    """None of adapters that are in no file."""
    adapter_set: AdapterSet
    """What is told of it; outlines, but of a file that has something twice, which is read whole."""
    layout: Layout
    """Of the result."""
    changes: Mapping[str, list[tuple[Placed, float]]]
    """Module path in the result -> what changes it, and how strongly."""
    encoders: Mapping[str, float]
    """Module path of a text encoder -> how strongly it takes part; these have one name in all layouts."""
    adapters: Mapping[str, Adapter]
    """Those of the file with their numbers, read when they are asked for."""
    cuttable: Mapping[str, Adapter]
    """The same, as LoRA where they must be cut and cannot."""

    @property
    def name(self) -> str:
        """The file's name."""
        return os.path.basename(self.addend.source.path)

    @property
    def paths(self) -> list[str]:
        """Everything in the result that it changes."""
        return [*self.changes, *self.encoders]

    def on_base(self, path: str) -> Adapter | None:
        """The first adapter there whose change depends on the weight; an outline."""
        found = (self.adapter_set.adapters[placed.module_path] for placed, _ in self.changes.get(path, ()))
        return next((a for a in found if isinstance(a, OnBase)), None)

    def require_unchanged(self) -> None:
        """Raise `FileError` if the file is not what it was when it was opened."""
        if self.file is not None:
            self.file.require_unchanged()

    def strengths(self, path: str) -> set[float]:
        """The strengths of what it has there."""
        shares = [self.encoders[path]] if path in self.encoders else [share for _, share in self.changes[path]]
        return {self.strength * share for share in shares}

    def exact(self, path: str) -> tuple[Adapter, str]:
        """What it adds there, with its strength in its numbers; and how that came to be.

        Raises:
            LycoError: it cannot be cut or stacked as the layout wants it.
        """
        with about_file(self.addend.source.path):
            if path in self.encoders:
                return times(self.cuttable[path], self.strength * self.encoders[path]), "renamed"
            changes = [(placed, self.strength * share) for placed, share in self.changes[path]]
            made = exact_module(path, changes, self.adapter_set, self.cuttable, self.layout)
            return made.adapter, made.how


def open_all(addends: Sequence[Addend], shares: Sequence[float], options: CombineOptions) -> list[Opened]:
    """The files, those whose share is not 0, on the layout of the result. None is held open.

    Args:
        shares: what each is multiplied by.

    Raises:
        LycoError: one is bad, of another family than the others, or has no place in the layout.
    """
    told = [_told(addend, options) for addend in addends]
    found = _of_one_family([(adapter_set, doubt) for _, adapter_set, doubt in told], addends)
    for adapter_set, addend in zip(found, addends, strict=True):
        with about_file(addend.source.path):
            require_known(adapter_set)
    layout = found[0].layout if options.to is None else layout_for(found[0], options.to)
    assert layout is not None
    opened: list[Opened] = []
    for addend, share, (file, _, _), adapter_set in zip(addends, shares, told, found, strict=True):
        if share:
            with about_file(addend.source.path):
                opened.append(_placed(addend, share, file, adapter_set, layout))
    return opened


def _told(addend: Addend, options: CombineOptions) -> tuple[AdapterFile | None, AdapterSet, LycoError | None]:
    """A file, closed again, and its outline: identified; or as the file has it, and why several families fit."""
    with about_file(addend.source.path), ExitStack() as stack:
        file, told = None, addend.adapters
        if told is None:
            file = stack.enter_context(AdapterFile(addend.source.path))
            told = file.outline
        try:
            found = identify(told, architecture=options.architecture, layout=options.to or "comfyui")
        except ArchitectureError as error:
            if error.remedy is not Remedy.ARCHITECTURE:
                raise
            error.file = os.path.basename(addend.source.path)
            return file, told, error
        return file, found, None


def _of_one_family(
    outlines: Sequence[tuple[AdapterSet, LycoError | None]], addends: Sequence[Addend]
) -> list[AdapterSet]:
    """The sets, all of one family: that of the others decides for a file whose names are those of several.

    Raises:
        PlacementError: they are of two families.
    """
    told: tuple[Architecture, Addend] | None = None
    for (found, _), addend in zip(outlines, addends, strict=True):
        if found.architecture is None:
            continue
        told = told or (found.architecture, addend)
        if found.architecture is not told[0]:
            first = os.path.basename(told[1].source.path)
            with about_file(addend.source.path):
                raise PlacementError(
                    f"is an adapter for {found.architecture.title}, and {first} is for {told[0].title}; give "
                    "adapters of one model family"
                )
    made: list[AdapterSet] = []
    for (found, doubt), addend in zip(outlines, addends, strict=True):
        if doubt is not None and told is None:
            raise doubt
        with about_file(addend.source.path):
            made.append(found if doubt is None or told is None else _as_told(found, *told))
    return made


def _as_told(found: AdapterSet, family: Architecture, first: Addend) -> AdapterSet:
    """A file whose names are those of several families, as one of the family of the others."""
    try:
        return identify(found, architecture=family.id)
    except ArchitectureError:
        name = os.path.basename(first.source.path)
        raise PlacementError(
            f"is no adapter for {family.title}, and {name} is; give adapters of one model family"
        ) from None


def _placed(addend: Addend, strength: float, file: AdapterFile | None, found: AdapterSet, layout: Layout) -> Opened:
    placement = place(found, layout=layout, prefix="")
    if file is not None and UNSEEN in placement.adapter_set.idle.values():
        placement = place(_whole(file, found), layout=layout, prefix="")
    adapters = placement.adapter_set.adapters
    if file is not None and any(map(is_outline, adapters.values())):
        file.require_finite()
        adapters = file.on_demand(placement.adapter_set)
    placement = placement.select(addend.selection)
    prefixes = placement.adapter_set.prefixes
    texts = {path: (path, prefixes[path]) for path in placement.homeless if is_text_encoders(prefixes[path])}
    placement = placement.without(texts.keys()).require_complete()
    changes: dict[str, list[tuple[Placed, float]]] = {}
    encoders: dict[str, float] = {}
    for item, share in placement.chosen(texts).items():
        if isinstance(item, Placed):
            changes.setdefault(item.key.removesuffix(".weight"), []).append((item, share))
        else:
            encoders[item] = share
    cuttable = as_lora_where_uncut(adapters, placement)
    return Opened(addend, strength, file, placement.adapter_set, layout, changes, encoders, adapters, cuttable)


def _whole(file: AdapterFile, outline: AdapterSet) -> AdapterSet:
    """The adapters with their numbers, which decide where the file has a module twice."""
    with AdapterFile(file.path) as again:
        found = again.read(outline)
    file.require_unchanged()
    return found
