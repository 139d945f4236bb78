"""Several adapter files onto one model, in the order of their rows."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack

from ....lyco_core.adapter_file import AdapterFile
from ....lyco_core.errors import PlacementError, about_file
from ..files import NONE, adapter_path
from ..protocols import CLIP, ModelPatcher
from .loading import Applied, Loaded, load_onto
from .matching import OpenedFile, model_weights

FIRST_ROWS = 6
ROWS = 12
"""Those above the first were added later, behind all other inputs: ComfyUI keeps a node's values by their order."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One file and how much of it is added."""

    name: str
    strength: float
    on: bool
    clip_strength: float | None = None
    """For its part for the text encoder; None: the same."""

    @property
    def takes_part(self) -> bool:
        """Whether the row is on and names a file."""
        return self.on and self.name != NONE

    @property
    def for_text_encoder(self) -> float:
        """How much of its part for the text encoder is added."""
        return self.strength if self.clip_strength is None else self.clip_strength


def load_rows(model: ModelPatcher, clip: CLIP | None, rows: list[Row], *, partial: bool, mode: str) -> Loaded:
    """Clones of `model` and `clip` with the files of all rows that are on; their changes add up.

    Raises:
        PlacementError: files for another architecture than the model's, each named.
        LycoError: a file is bad or does not fit. Nothing is applied then.
    """
    rows_on = [row for row in rows if row.takes_part]
    with ExitStack() as stack:
        opened = _opened(model, rows_on, stack)
        reports: list[str] = []
        applied: tuple[Applied, ...] = ()
        for row in rows_on:
            loaded = load_onto(
                model,
                clip,
                row.name,
                row.strength,
                partial=partial,
                mode=mode,
                opened=opened.get(row.name),
                clip_strength=row.clip_strength,
            )
            model, clip = loaded.model, loaded.clip
            reports.append(loaded.report)
            applied += loaded.applied
    return Loaded(model, clip, "\n\n".join(reports) or "every row is empty or off: nothing is applied", applied)


def _opened(model: ModelPatcher, rows: list[Row], stack: ExitStack) -> dict[str, OpenedFile]:
    """The rows' files, open, and their outlines. Raises `PlacementError` for one of another architecture."""
    weights = model_weights(model)
    if weights.architecture is None:
        return {}
    opened: dict[str, OpenedFile] = {}
    for name in dict.fromkeys(row.name for row in rows):
        path = adapter_path(name)
        with about_file(path):
            file = stack.enter_context(AdapterFile(path))
            opened[name] = OpenedFile(file, weights.identify(file.outline))
    families = {row.name: opened[row.name].outline.architecture or weights.architecture for row in rows}
    strangers = {name: family for name, family in families.items() if family is not weights.architecture}
    if strangers:
        named = "; ".join(f"{name} is for {family.title}" for name, family in strangers.items())
        raise PlacementError(
            f"the model is {weights.architecture.title}, but {len(strangers)} of {len(rows)} adapters are for others: "
            f"{named}; switch them off, or load them onto their own model"
        )
    return opened
