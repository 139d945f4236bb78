"""What a model family's table is made of, and how a module is found in another layout."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from fractions import Fraction
from typing import NamedTuple

from ..layouts import LAYOUTS, Layout
from .templates import NUMBERS, split, templates_of
from .training import TrainedFamily

__all__ = [
    "Architecture",
    "Group",
    "Shape",
    "Target",
    "group",
    "inside",
    "inside_all",
    "renamed",
    "same",
]

Shape = tuple[int | Fraction, int | Fraction]
"""(out, in), in widths of the model."""


class Target(NamedTuple):
    """Where rows of a module lie in another layout. Bands are (start, stop, of), in parts' heights."""

    path: str
    source: tuple[int, int, int]
    """Rows of the source module that go there."""
    rows: tuple[int, int, int]
    """Rows of the target module that they become."""


@dataclasses.dataclass(frozen=True)
class Group:
    """Rows that some layout keeps in one weight, and what each layout calls them.

    In each layout either one module holds all the rows, or each part has a module of its own.
    None: the layout has no such module. `{n}` in a name is the block's number; a name without it is
    taken as it stands, numbers and all.
    """

    musubi: tuple[str, ...] | None
    comfyui: tuple[str, ...] | None
    diffusers: tuple[str, ...] | None
    heights: tuple[int, ...] = (1,)
    """How many rows each part has, relative to the others."""
    shape: Shape | None = None
    """The shape of all the rows together, where the family fixes it."""
    inputs: tuple[int, ...] = ()
    """What `in` can be, where it is no width of the model but of what it is given, such as text."""

    def __post_init__(self) -> None:
        for layout in LAYOUTS:
            names = self.names(layout)
            if names is not None and len(names) not in (1, len(self.heights)):
                raise ValueError(f"{names}: expected one module or {len(self.heights)}")
            for name in names or ():
                if "{n}" in name and (name, "0") not in templates_of(name.replace("{n}", "0")):
                    raise ValueError(f"{name}: expected {{n}} between dots, as one of the first {NUMBERS} numbers")

    def names(self, layout: Layout) -> tuple[str, ...] | None:
        """The modules that hold the group's rows in `layout`."""
        return getattr(self, layout)

    def targets(self, position: int, source: Layout, target: Layout) -> list[Target]:
        """Where the rows of its module at `position` in `source` lie in `target`; empty if it has no such module."""
        names = self.names(target)
        if names is None:
            return []
        total = sum(self.heights)
        edges = [sum(self.heights[:i]) for i in range(len(self.heights) + 1)]
        whole = len(self.names(source) or ()) == 1
        first, last = (0, len(self.heights)) if whole else (position, position + 1)
        start, stop = edges[first], edges[last]
        height = stop - start
        if len(names) == 1:
            return [Target(names[0], (0, height, height), (start, stop, total))]
        return [
            Target(
                names[i],
                (edges[i] - start, edges[i + 1] - start, height),
                (0, self.heights[i], self.heights[i]),
            )
            for i in range(first, last)
        ]


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A model family as data. Only what breaks ties, depths and widths, knows of models' sizes."""

    id: str
    title: str
    groups: tuple[Group, ...]
    depths: Mapping[str, int]
    """Start of a block's name in Musubi's layout -> how many the largest model has. If the family is trained, the
    Linear modules of these blocks are."""
    widths: tuple[int, ...] = ()
    """The widths of the models that there are."""
    training: TrainedFamily | None = None
    """What training needs to know; None: neither Musubi Tuner nor this trains LoHa and LoKr of it."""
    comfyui_takes: Layout = "comfyui"
    """Whose names stock ComfyUI's key map takes below `diffusion_model.` without losing rows: where it
    addresses rows of a fused weight by diffusers' names, adapters need not be fused for it."""
    diffusers_prefix: str = "transformer."
    """What stands before diffusers' names in its files."""
    musubi_lora_only: bool = False
    """Whether Musubi Tuner trains and reads LoRA of it, but no LoHa and LoKr."""

    def __post_init__(self) -> None:
        for block in self.depths:
            if not any(name.startswith(f"{block}.{{n}}.") for g in self.groups for name in g.musubi or ()):
                raise ValueError(f"{self.id}: there is no block {block}.{{n}} in Musubi's layout")

    @functools.cached_property
    def _index(self) -> dict[Layout, dict[str, tuple[Group, int]]]:
        """Layout -> template -> group, and which of its modules."""
        index: dict[Layout, dict[str, tuple[Group, int]]] = {layout: {} for layout in LAYOUTS}
        for group in self.groups:
            for layout in LAYOUTS:
                for position, name in enumerate(group.names(layout) or ()):
                    if name in index[layout]:
                        raise ValueError(f"{self.id}: {layout} has {name} twice")
                    index[layout][name] = group, position
        return index

    @functools.cached_property
    def _routes(self) -> dict[tuple[Layout, Layout], dict[str, list[Target]]]:
        """(source, target) -> template -> `locate` of it, filled as it is asked for: blocks are alike."""
        return {}

    @functools.cached_property
    def _underscored(self) -> dict[Layout, dict[str, str]]:
        """Layout -> template with every dot as an underscore -> template."""
        return {layout: {t.replace(".", "_"): t for t in self._index[layout]} for layout in LAYOUTS}

    @functools.cached_property
    def _dotted(self) -> dict[Layout, dict[str, str]]:
        return {layout: {t: t for t in self._index[layout]} for layout in LAYOUTS}

    def templates(self, layout: Layout) -> list[str]:
        """Every module name of `layout`, with `{n}` for a block's number."""
        return list(self._index[layout])

    def resolve(self, name: str, layout: Layout, *, underscored: bool) -> str | None:
        """The dotted module path that `name` means in `layout`, or None if there is none."""
        template, number = split(name, known := self.spellings(layout, underscored=underscored))
        if template not in known or (not number and "{n}" in template):  # a file can say `{n}` itself
            return None
        return known[template].replace("{n}", number)

    def spellings(self, layout: Layout, *, underscored: bool) -> Mapping[str, str]:
        """Every module name of `layout`, with `{n}` for a block's number, as it is spelled -> with its dots."""
        return self._underscored[layout] if underscored else self._dotted[layout]

    def template_of(self, path: str, layout: Layout) -> tuple[str, str]:
        """(the module path with `{n}` for its block's number, that number); the number is empty outside of blocks."""
        return split(path, self._index[layout])

    def group_of(self, path: str, layout: Layout) -> tuple[Group, int]:
        """The group of a module path, and the position of the module in it. Raises KeyError."""
        return self._index[layout][self.template_of(path, layout)[0]]

    def fits(self, path: str, layout: Layout, shape: tuple[int, int]) -> bool:
        """Whether a module of (out, in) is possible at `path`: the family fixes some ratios and sizes."""
        group, position = self.group_of(path, layout)
        if group.inputs and shape[1] not in group.inputs:
            return False
        if group.shape is None:
            return True
        names = group.names(layout) or ()
        out, total = shape[0], sum(group.heights)
        part = total if len(names) == 1 else group.heights[position]
        return out * total * group.shape[1] == shape[1] * group.shape[0] * part

    def width(self, path: str, layout: Layout, shape: tuple[int, int]) -> int | Fraction | None:
        """The width of the model that a module of (out, in) at `path` is in; None where the family fixes no shape."""
        group = self.group_of(path, layout)[0]
        return None if group.shape is None else Fraction(shape[1]) / group.shape[1]

    def locate(self, path: str, source: Layout, target: Layout) -> list[Target]:
        """Where the rows of `path` lie in `target`, top to bottom; empty if it has no such module."""
        template, number = self.template_of(path, source)
        routes = self._routes.setdefault((source, target), {})
        if template not in routes:
            group, position = self._index[source][template]
            routes[template] = group.targets(position, source, target)
        if not number:
            return routes[template]
        return [Target(path.replace("{n}", number), *bands) for path, *bands in routes[template]]


def group(
    musubi: str | None,
    comfyui: str | None,
    diffusers: str | None,
    *,
    heights: tuple[int, ...] = (1,),
    shape: Shape | None = None,
    inputs: tuple[int, ...] = (),
) -> Group:
    """A `Group` from names separated by spaces."""
    split = (None if names is None else tuple(names.split()) for names in (musubi, comfyui, diffusers))
    return Group(*split, heights=heights, shape=shape, inputs=inputs)


def same(*names: str, shape: Shape | None = None) -> tuple[Group, ...]:
    """One group for each of `names`, which every layout calls alike."""
    return tuple(group(name, name, name, shape=shape) for name in names)


def renamed(
    names: Mapping[str, str | None], *, shape: Shape | None = None, inputs: tuple[int, ...] = ()
) -> tuple[Group, ...]:
    """One group for each name that Musubi and ComfyUI share -> diffusers'; several where it splits evenly."""
    parts = {ours: len(theirs.split()) if theirs else 1 for ours, theirs in names.items()}
    return tuple(
        group(ours, ours, theirs, heights=(1,) * parts[ours], shape=shape, inputs=inputs)
        for ours, theirs in names.items()
    )


def inside(musubi: str, comfyui: str, diffusers: str, groups: tuple[Group, ...]) -> tuple[Group, ...]:
    """`groups`, in each layout below that layout's module."""
    above = dict(zip(LAYOUTS, (musubi, comfyui, diffusers), strict=True))

    def put(g: Group) -> Group:
        renamed = {
            layout: tuple(f"{above[layout]}.{name}" for name in names)
            for layout in LAYOUTS
            if (names := g.names(layout)) is not None
        }
        return dataclasses.replace(g, **renamed)

    return tuple(put(g) for g in groups)


def inside_all(name: str, groups: tuple[Group, ...]) -> tuple[Group, ...]:
    """`groups` below a module that every layout calls `name`."""
    return inside(name, name, name, groups)
