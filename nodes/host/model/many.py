"""Several adapter files onto one model, in the order of their rows."""

from __future__ import annotations

import dataclasses

from ....lyco_core.architectures import Architecture, identify
from ....lyco_core.errors import PlacementError, about_file
from ....lyco_core.load import read_outline
from ..files import NONE, adapter_path
from ..protocols import CLIP, ModelPatcher
from .loading import Applied, Loaded, load_onto, model_weights

ROWS = 6


@dataclasses.dataclass(frozen=True)
class Row:
    """One file and how much of it is added."""

    name: str
    strength: float
    on: bool

    @property
    def wanted(self) -> bool:
        """Whether it takes part."""
        return self.on and self.name != NONE


def load_rows(model: ModelPatcher, clip: CLIP | None, rows: list[Row], *, partial: bool, mode: str) -> Loaded:
    """Clones of `model` and `clip` with the files of all rows that are on; their changes add up.

    Raises:
        PlacementError: files for another architecture than the model's, each named.
        LycoError: a file is bad or does not fit. Nothing is applied then.
    """
    wanted = [row for row in rows if row.wanted]
    _require_one_architecture(model, wanted)
    reports: list[str] = []
    applied: tuple[Applied, ...] = ()
    for row in wanted:
        loaded = load_onto(model, clip, row.name, row.strength, partial=partial, mode=mode)
        model, clip = loaded.model, loaded.clip
        reports.append(loaded.report)
        applied += loaded.applied
    return Loaded(model, clip, "\n\n".join(reports) or "every row is empty or off: nothing is applied", applied)


def _require_one_architecture(model: ModelPatcher, rows: list[Row]) -> None:
    weights = model_weights(model)
    if weights.architecture is None:
        return
    families: dict[str, Architecture] = {}
    for row in rows:
        path = adapter_path(row.name)
        with about_file(path):
            found = identify(read_outline(path), weights=weights.paths, prefer=weights.architecture.id)
        families[row.name] = found.architecture or weights.architecture
    strangers = {name: family for name, family in families.items() if family is not weights.architecture}
    if strangers:
        named = "; ".join(f"{name} is for {family.title}" for name, family in strangers.items())
        raise PlacementError(
            f"the model is {weights.architecture.title}, but {len(strangers)} of {len(rows)} adapters are for others: "
            f"{named}; switch them off, or load them onto their own model"
        )
