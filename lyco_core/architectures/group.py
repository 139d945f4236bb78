"""Rows that some layout keeps in one weight, and what each layout calls them: what a family's table is made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from fractions import Fraction
from typing import NamedTuple

from ..layouts import LAYOUTS, Layout
from .templates import NUMBERS, templates_of

__all__ = [
    "Alias",
    "Group",
    "Shape",
    "Target",
    "group",
    "inside",
    "inside_all",
    "renamed",
    "same",
    "with_aliases",
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
    swapped: bool = False
    """Whether the two halves of those rows change places on the way."""


class Alias(NamedTuple):
    """Another name for rows of a group, by which files have them and no file is written."""

    name: str
    layout: Layout
    parts: tuple[int, int]
    """start:stop of the group's parts that a module of this name holds."""


@dataclasses.dataclass(frozen=True)
class Group:
    """Rows that some layout keeps in one weight, and what each layout calls them.

    In each layout either one module holds all the rows, or each part has a module of its own.
    None: the layout has no such module. `{n}` in a name is the block's number; a name without it is
    taken as it stands, numbers and all.

    Two groups of a family may have the same names if their shapes differ: then a module's shape tells which it is of.
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
    outputs: tuple[int, ...] = ()
    """What `out` of all the rows together can be, where it is no width of the model but of what it gives."""
    swapped: tuple[Layout, ...] = ()
    """The layouts that keep the second half of the rows above the first: a modulation's scale above its shift."""
    aliases: tuple[Alias, ...] = ()
    """Other names of its rows: `to_qkv` of diffusers' fused attention."""

    def __post_init__(self) -> None:
        for layout in LAYOUTS:
            names = self.names(layout)
            if names is not None and len(names) not in (1, len(self.heights)):
                raise ValueError(f"{names}: expected one module or {len(self.heights)}")
            for name in (*(names or ()), *(alias.name for alias in self.aliases)):
                if "{n}" in name and (name, "0") not in templates_of(name.replace("{n}", "0")):
                    raise ValueError(f"{name}: expected {{n}} between dots, as one of the first {NUMBERS} numbers")
        if self.swapped and len(self.heights) > 1:
            raise ValueError(f"{self.comfyui}: halves that change places are of one part, not of {len(self.heights)}")

    def names(self, layout: Layout) -> tuple[str, ...] | None:
        """The modules that hold the group's rows in `layout`."""
        return getattr(self, layout)

    def modules(self, layout: Layout) -> dict[str, tuple[int, int]]:
        """Every name that a module of the group has in `layout` -> start:stop of the parts that it holds."""
        names, count = self.names(layout) or (), len(self.heights)
        held = {names[0]: (0, count)} if len(names) == 1 else {name: (i, i + 1) for i, name in enumerate(names)}
        for alias in self.aliases:
            if alias.layout == layout:
                held[alias.name] = alias.parts
        return held

    def targets(self, parts: tuple[int, int], source: Layout, target: Layout) -> list[Target]:
        """Where the rows of `parts`, a module of `source`, lie in `target`; empty if it has no such module."""
        names = self.names(target)
        if names is None:
            return []
        edges = [sum(self.heights[:i]) for i in range(len(self.heights) + 1)]
        start, stop = edges[parts[0]], edges[parts[1]]
        height = stop - start
        if len(names) == 1:
            swapped = (source in self.swapped) != (target in self.swapped)
            return [Target(names[0], (0, height, height), (start, stop, edges[-1]), swapped)]
        return [
            Target(
                names[i],
                (edges[i] - start, edges[i + 1] - start, height),
                (0, self.heights[i], self.heights[i]),
            )
            for i in range(*parts)
        ]

    def shape_of(self, parts: tuple[int, int]) -> Shape | None:
        """The shape of a module that holds `parts`, where the family fixes it."""
        if self.shape is None:
            return None
        return Fraction(self.shape[0]) * sum(self.heights[slice(*parts)]) / sum(self.heights), self.shape[1]

    def fits(self, parts: tuple[int, int], shape: tuple[int, int]) -> bool:
        """Whether a module of (out, in) that holds `parts` is possible: the family fixes some ratios and sizes."""
        out, held, total = shape[0], sum(self.heights[slice(*parts)]), sum(self.heights)
        if self.inputs and shape[1] not in self.inputs:
            return False
        if self.outputs and not any(out * total == whole * held for whole in self.outputs):
            return False
        return self.shape is None or out * total * self.shape[1] == shape[1] * self.shape[0] * held


def group(
    musubi: str | None,
    comfyui: str | None,
    diffusers: str | None,
    *,
    heights: tuple[int, ...] = (1,),
    shape: Shape | None = None,
    inputs: tuple[int, ...] = (),
    outputs: tuple[int, ...] = (),
    swapped: tuple[Layout, ...] = (),
    fused: str | Mapping[str, tuple[int, int]] | None = None,
) -> Group:
    """A `Group` from names separated by spaces.

    Args:
        swapped: see `Group.swapped`.
        fused: what diffusers calls a module of all the parts, or of start:stop of them, once it has fused them.
    """
    split = (None if names is None else tuple(names.split()) for names in (musubi, comfyui, diffusers))
    fused = {fused: (0, len(heights))} if isinstance(fused, str) else fused or {}
    aliases = tuple(Alias(name, "diffusers", parts) for name, parts in fused.items())
    return Group(*split, heights=heights, shape=shape, inputs=inputs, outputs=outputs, swapped=swapped, aliases=aliases)


def same(
    *names: str, shape: Shape | None = None, inputs: tuple[int, ...] = (), outputs: tuple[int, ...] = ()
) -> tuple[Group, ...]:
    """One group for each of `names`, which every layout calls alike."""
    return tuple(group(name, name, name, shape=shape, inputs=inputs, outputs=outputs) for name in names)


def renamed(
    names: Mapping[str, str | None],
    *,
    shape: Shape | None = None,
    inputs: tuple[int, ...] = (),
    outputs: tuple[int, ...] = (),
    swapped: tuple[Layout, ...] = (),
    fused: str | None = None,
) -> tuple[Group, ...]:
    """One group for each name that Musubi and ComfyUI share -> diffusers'; several where it splits evenly.

    Args:
        swapped: see `Group.swapped`.
        fused: see `group`; of a single name.
    """
    parts = {ours: len(theirs.split()) if theirs else 1 for ours, theirs in names.items()}
    return tuple(
        group(
            ours,
            ours,
            theirs,
            heights=(1,) * parts[ours],
            shape=shape,
            inputs=inputs,
            outputs=outputs,
            swapped=swapped,
            fused=fused,
        )
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
        aliases = tuple(alias._replace(name=f"{above[alias.layout]}.{alias.name}") for alias in g.aliases)
        return dataclasses.replace(g, **renamed, aliases=aliases)

    return tuple(put(g) for g in groups)


def inside_all(name: str, groups: tuple[Group, ...]) -> tuple[Group, ...]:
    """`groups` below a module that every layout calls `name`."""
    return inside(name, name, name, groups)


def with_aliases(groups: tuple[Group, ...], layout: Layout, names: Mapping[str, str]) -> tuple[Group, ...]:
    """`groups` with other names in `layout` for modules of ComfyUI's, by what ComfyUI calls them.

    Raises:
        ValueError: no group has one of the modules.
    """
    left = set(names)

    def put(g: Group) -> Group:
        known = {ours: parts for ours, parts in g.modules("comfyui").items() if ours in names}
        left.difference_update(known)
        return dataclasses.replace(
            g, aliases=(*g.aliases, *(Alias(names[ours], layout, parts) for ours, parts in known.items()))
        )

    made = tuple(put(g) for g in groups)
    if left:
        raise ValueError(f"there is no module {sorted(left)[0]} in ComfyUI's layout to call {names[sorted(left)[0]]}")
    return made
