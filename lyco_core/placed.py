"""One adapter on one weight: which of its rows go onto which rows, by the families' tables and by shapes."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from .adapters import ANY, Adapter, Full, cut, fits, with_halves_swapped
from .architectures import Target
from .errors import PlacementError
from .formats.grammar import is_text_encoders
from .layouts import BIAS, Layout, parameter_of

if TYPE_CHECKING:
    from torch import Tensor

    from .adapter_set import AdapterSet

__all__ = ["KEY_PREFIXES", "WHOLE", "Misfit", "Placed", "Shape", "keeps_its_name", "put", "targets_in"]

Shape = tuple[int, ...]

WHOLE = Target("", (0, 1, 1), (0, 1, 1))
"""All rows of a module onto all rows of another."""

KEY_PREFIXES: dict[Layout, str] = {"comfyui": "diffusion_model.", "musubi": "", "diffusers": ""}
"""What stands before a module path in the keys of a model's weights, where no model is given."""


@dataclasses.dataclass(frozen=True)
class Placed:
    """One adapter, or a band of its rows, on one weight, or a band of its rows."""

    module_path: str
    key: str
    """The weight's, e.g. `diffusion_model.blocks.0.self_attn.q.weight`."""
    shape: Shape
    """The weight's whole shape."""
    rows: tuple[int, int] | None
    """start:stop in the weight; None for all of them."""
    source_rows: tuple[int, int] | None
    """start:stop in the adapter; None for all of them."""
    by_name: bool = False
    """Whether the model's own name for the module decided, as no table has it."""
    swapped: bool = False
    """Whether the two halves of the adapter's rows change places."""

    def part(self, adapter: Adapter) -> Adapter:
        """The piece of the module's adapter that goes here; exact, if need be as a LoRA."""
        if self.swapped:
            return with_halves_swapped(adapter)
        if self.source_rows is None:
            return adapter
        piece = cut(adapter, *self.source_rows)
        if piece is None:
            raise PlacementError(f"{self.module_path}: {adapter.title} cannot be cut for {self.key}")
        return piece

    def band(self, weight: Tensor) -> Tensor:
        """The rows of the whole weight that the piece changes, as a view."""
        return weight if self.rows is None else weight[slice(*self.rows)]


@dataclasses.dataclass(frozen=True)
class Misfit:
    """An adapter whose place has another shape."""

    module_path: str
    key: str
    expected: Shape
    """The shape of the weight, or of its rows."""
    found: Shape
    """The shape of the adapter's change."""


def targets_in(adapter_set: AdapterSet, path: str, layout: Layout) -> list[Target]:
    """Where the rows of a module, or its bias, lie in `layout` by its family's table; empty if that has no place."""
    architecture = adapter_set.architecture
    if architecture is None or adapter_set.layout is None:
        return []
    module, parameter = parameter_of(path)
    source = adapter_set.exceptions.get(module, adapter_set.layout)
    if architecture.resolve(module, source, underscored=False) is None:  # not the family's: as the file spells it
        return []
    out, inputs = adapter_set.adapters[path].flat_shape
    return architecture.locate(module, source, layout, (out, ANY if parameter == BIAS else inputs))


def keeps_its_name(adapter_set: AdapterSet, path: str, layout: Layout) -> bool:
    """Whether a difference of a parameter that no table has, a norm's say, is called in `layout` as in the file.

    It is where the modules beside it are; names without dots do not say which module that is.
    """
    family, format = adapter_set.architecture, adapter_set.format
    if family is None or adapter_set.layout is None or format is None or format.underscored:
        return False
    ours = not is_text_encoders(adapter_set.prefixes[path]) and isinstance(adapter_set.adapters[path], Full)
    return ours and family.keeps_names(path, adapter_set.layout, layout)


def put(
    path: str, adapter: Adapter, target: Target, key: str, known: dict[str, Shape], *, by_name: bool
) -> Placed | Misfit:
    """Where the adapter's rows go; a weight that is not in `known` yet becomes as large as they say."""
    changed = adapter.shape
    height = changed[0] or _height_for(target, known.get(key))
    source = _band(target.source, height)
    band_height = height if source is None else source[1] - source[0]
    start, stop, total = target.rows
    whole = stop - start == total
    parts = 2 if target.swapped else target.source[2]
    if (source is not None or target.swapped) and height % parts:
        return Misfit(path, key, (height - height % parts, *changed[1:]), changed)
    if not whole and band_height % (stop - start):
        return Misfit(path, key, (band_height - band_height % (stop - start), *changed[1:]), changed)
    full_height = band_height if whole else band_height // (stop - start) * total
    shape = known.setdefault(key, (full_height, *changed[1:]))
    if not shape:
        return Misfit(path, key, shape, changed)
    rows = _band(target.rows, shape[0])
    expected = shape if rows is None else (rows[1] - rows[0], *shape[1:])
    part = changed if changed[0] == ANY else (band_height, *changed[1:])
    if not fits(part, expected) or (rows is not None and shape[0] % total):
        return Misfit(path, key, expected, changed)
    return Placed(path, key, shape, rows, source, by_name, target.swapped)


def _height_for(target: Target, weight: Shape | None) -> int:
    """How many rows an adapter has there that fits any number; 0 if the weight is not known."""
    if not weight:  # not known, or a lone number, onto which nothing fits
        return ANY
    (first, last, of), (start, stop, total) = target.source, target.rows
    return weight[0] * (stop - start) // total * of // (last - first)


def _band(band: tuple[int, int, int], height: int) -> tuple[int, int] | None:
    """(start, stop, of) in parts -> start:stop in rows of a matrix of `height`; None for all."""
    start, stop, total = band
    return None if (start, stop) == (0, total) else (height * start // total, height * stop // total)
