"""Which adapter goes onto which weight, on which rows: decided before any weight is touched."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping

from .adapter_set import AdapterSet
from .adapters import ANY, Adapter, cut, fits, shape_text
from .architectures import Target
from .duplicates import said_before
from .errors import PlacementError, shorten
from .layouts import Layout, parameter_of

__all__ = ["KEY_PREFIXES", "Misfit", "Placed", "Placement", "place", "targets_of"]

Shape = tuple[int, ...]

_WHOLE = Target("", (0, 1, 1), (0, 1, 1))
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

    def part(self, adapter: Adapter) -> Adapter:
        """The piece of the module's adapter that goes here; exact, if need be as a LoRA."""
        if self.source_rows is None:
            return adapter
        piece = cut(adapter, *self.source_rows)
        if piece is None:
            raise PlacementError(f"{self.module_path}: a {adapter.title} cannot be cut for {self.key}")
        return piece


@dataclasses.dataclass(frozen=True)
class Misfit:
    """An adapter whose place has another shape."""

    module_path: str
    key: str
    expected: Shape
    """Of the weight, or of its rows."""
    found: Shape
    """Of the adapter."""


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

    def problem(self) -> str:
        """What has no place and why, in one line; empty if everything has."""
        total = len(self.adapter_set.adapters)
        parts: list[str] = []
        if self.homeless:
            names = shorten([self.adapter_set.prefixes[path] for path in self.homeless])
            parts.append(f"{len(self.homeless)} of {total} modules are not in {self.where} ({names})")
        if self.misfits:
            first = self.misfits[0]
            parts.append(
                f"{len(self.misfits)} of {total} modules have another shape ({first.module_path}: the model's "
                f"weight is {list(first.expected)}, the adapter's {shape_text(first.found)})"
            )
        if self.adapter_set.unrecognised_keys:
            keys = list(self.adapter_set.unrecognised_keys)
            parts.append(f"{len(keys)} keys belong to no adapter that is known here ({shorten(keys)})")
        return "; ".join(parts)

    def without(self, paths: Collection[str]) -> Placement:
        """As if the file did not have the modules, or the keys of no adapter, `paths`."""
        unrecognised = {key: t for key, t in self.adapter_set.unrecognised.items() if key not in paths}
        return dataclasses.replace(
            self,
            adapter_set=dataclasses.replace(self.adapter_set, unrecognised=unrecognised),
            placed=tuple(p for p in self.placed if p.module_path not in paths),
            homeless=tuple(path for path in self.homeless if path not in paths),
            misfits=tuple(m for m in self.misfits if m.module_path not in paths),
        )

    def require_complete(self) -> Placement:
        """Itself, or `PlacementError` if anything in the file has no place."""
        if not self.complete:
            raise PlacementError(self.problem())
        return self


def place(
    adapter_set: AdapterSet,
    weights: Mapping[str, Shape] | None = None,
    *,
    layout: Layout = "comfyui",
    prefix: str | None = None,
) -> Placement:
    """Find the weight, and the rows of it, for each adapter.

    Args:
        adapter_set: with its architecture identified; outlines will do. That of the result lacks
            what is there twice.
        weights: key -> shape of the model's weights; None: from the architecture alone, each
            weight as large as the adapters say.
        layout: whose names the weights have.
        prefix: what their keys begin with; by default `KEY_PREFIXES`.

    Raises:
        AdapterError: two modules contradict each other; see `duplicates`.
    """
    prefix = KEY_PREFIXES[layout] if prefix is None else prefix
    known: dict[str, Shape] = {} if weights is None else dict(weights)
    own_names = _own_names(known, prefix)
    placed: list[Placed] = []
    homeless: list[str] = []
    misfits: list[Misfit] = []
    for path, adapter in adapter_set.adapters.items():
        module, parameter = parameter_of(path)
        targets = [(t, f"{prefix}{t.path}{parameter}") for t in targets_of(adapter_set, module, layout)]
        by_name = not targets or (weights is not None and any(key not in weights for _, key in targets))
        if by_name:
            targets = [(_WHOLE, key) for key in own_names.get(path.replace(".", "_"), ())]
        if len(targets) != 1 and by_name:
            homeless.append(path)
            continue
        found = [_put(path, adapter, target, key, known, by_name=by_name) for target, key in targets]
        if bad := next((f for f in found if isinstance(f, Misfit)), None):
            misfits.append(bad)
        else:
            placed += (f for f in found if isinstance(f, Placed))
    where = f"the {layout} layout" if weights is None else "the model"
    idle = said_before(placed, adapter_set)
    counted = tuple(piece for piece in placed if piece.module_path not in idle)
    return Placement(adapter_set.without(idle), counted, tuple(homeless), tuple(misfits), where)


def _own_names(weights: Mapping[str, Shape], prefix: str) -> dict[str, list[str]]:
    """What a module, or its bias, is called in underscores -> the keys that may be meant."""
    names: dict[str, list[str]] = {}
    for key in weights:
        if key.startswith(prefix):
            names.setdefault(key.removeprefix(prefix).removesuffix(".weight").replace(".", "_"), []).append(key)
    return names


def targets_of(adapter_set: AdapterSet, path: str, layout: Layout) -> list[Target]:
    """Where a module lies in `layout` by the tables; empty if they have no place for it."""
    if adapter_set.architecture is None or adapter_set.layout is None:
        return []
    architecture = adapter_set.architecture
    source = adapter_set.exceptions.get(path, adapter_set.layout)
    if architecture.resolve(path, source, underscored=False) is None:
        return []
    return architecture.locate(path, source, layout)


def _put(
    path: str, adapter: Adapter, target: Target, key: str, known: dict[str, Shape], *, by_name: bool
) -> Placed | Misfit:
    """Where the adapter's rows go; a weight that is not in `known` yet becomes as large as they say."""
    height = adapter.shape[0] or _height_for(target, known.get(key))
    source = _band(target.source, height)
    band_height = height if source is None else source[1] - source[0]
    start, stop, total = target.rows
    whole = stop - start == total
    if source is not None and height % target.source[2]:
        return Misfit(path, key, (height - height % target.source[2], *adapter.shape[1:]), adapter.shape)
    if not whole and band_height % (stop - start):
        return Misfit(path, key, (band_height - band_height % (stop - start), *adapter.shape[1:]), adapter.shape)
    full_height = band_height if whole else band_height // (stop - start) * total
    shape = known.setdefault(key, (full_height, *adapter.shape[1:]))
    if not shape:
        return Misfit(path, key, shape, adapter.shape)
    rows = _band(target.rows, shape[0])
    expected = shape if rows is None else (rows[1] - rows[0], *shape[1:])
    part = adapter.shape if adapter.shape[0] == ANY else (band_height, *adapter.shape[1:])
    if not fits(part, expected) or (rows is not None and shape[0] % total):
        return Misfit(path, key, expected, adapter.shape)
    return Placed(path, key, shape, rows, source, by_name)


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
