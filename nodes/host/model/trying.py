"""One model with adapter files at several strengths each, to be compared: every one as *Load LoHa/LoKr* makes it."""

from __future__ import annotations

import dataclasses
import itertools
import ntpath
import os
from collections.abc import Sequence
from decimal import Decimal

from ....lyco_core.errors import SelectionError
from ....lyco_core.selection import EVERYTHING, Selection
from ....lyco_core.text import one_line
from ..progress import Progress
from ..protocols import CLIP, ModelPatcher
from .loading import Applied, Loaded, load_onto
from .number_lists import LIMIT, numbers_of


@dataclasses.dataclass(frozen=True)
class Tried:
    """What *Try LoHa/LoKr Strengths* returns: of each try a model, a text encoder and a label."""

    loaded: tuple[Loaded, ...]
    labels: tuple[str, ...]
    applied: tuple[Applied, ...]
    """What matched of each file."""

    @property
    def report(self) -> str:
        """What matched in each try."""
        return "\n\n".join(loaded.report for loaded in self.loaded)

    def of(self, name: str) -> tuple[Applied, ...]:
        """What matched of one file; of the first, where that one is not tried."""
        return tuple(one for one in self.applied if one.match.name == name) or self.applied[:1]


def try_all(
    model: ModelPatcher,
    clip: CLIP | None,
    names: Sequence[str],
    strengths: Sequence[Decimal],
    *,
    partial: bool,
    selection: Selection = EVERYTHING,
    mode: str,
) -> Tried:
    """Clones of `model` and `clip`: the files in their order, each at every strength. All share the files' tensors.

    Raises:
        SelectionError: they are more than `LIMIT`.
        LycoError: a file is bad or does not fit.
        InterruptProcessingException: ComfyUI's, once the person stops it.
    """
    total = len(names) * len(strengths)
    if total > LIMIT:
        raise SelectionError(
            f"{len(names)} files at {len(strengths)} strengths are {total} pictures, expected at most {LIMIT}; write "
            "fewer strengths, or choose some of the files by only"
        )
    loaded: list[Loaded] = []
    labels: list[str] = []
    progress = Progress()
    for name, strength in itertools.product(names, strengths):
        loaded.append(load_onto(model, clip, name, float(strength), partial=partial, selection=selection, mode=mode))
        labels.append(label_of(name, strength))
        progress(len(loaded), total)
    every = "/".join(f"{strength:f}" for strength in strengths)
    of_files = loaded[:: len(strengths)]
    applied = tuple(Applied(one.match, f"strength {every}") for file in of_files for one in file.applied)
    return Tried(tuple(loaded), tuple(labels), applied)


def label_of(name: str, strength: Decimal) -> str:
    """`NAME@STRENGTH`, as the command line has it, but the name alone: for a grid, and for the name of a picture."""
    return f"{one_line(os.path.splitext(ntpath.basename(name))[0])}@{strength:f}"


def strengths_of(text: str) -> tuple[Decimal, ...]:
    """The numbers of the input `strengths`. Raises `SelectionError` where it is no list of strengths."""
    return numbers_of("strengths", text, 100)
