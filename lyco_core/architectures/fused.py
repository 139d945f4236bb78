"""The names that attention has in diffusers once `fuse_qkv_projections` has been called, as trainers do.

One module then holds the rows of two or three, top to bottom. No file is written with these names: a model has them
only while it is fused.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from fractions import Fraction
from math import lcm

from ..layouts import LAYOUTS
from .group import Alias, Group

__all__ = ["FUSED", "with_fused_names"]

FUSED = {
    "to_qkv": ("to_q", "to_k", "to_v"),
    "to_kv": ("to_k", "to_v"),
    "to_added_qkv": ("add_q_proj", "add_k_proj", "add_v_proj"),
    "to_added_kv": ("add_k_proj", "add_v_proj"),
}
"""A fused module -> the modules beside it whose rows it holds."""


def with_fused_names(groups: Sequence[Group]) -> list[Group]:
    """`groups` with an alias for each fused module, by which it is found.

    Where modules are groups of their own, those that a fused one holds become one group, if their shapes say how many
    rows each has; keys and values have as many as each other in any case.
    """
    made: list[Group | None] = [*groups]
    where: dict[str, list[int]] = {}  # several, where a module's shape tells which is meant
    for i, g in enumerate(groups):
        for name in g.modules("diffusers"):
            where.setdefault(name, []).append(i)
    for fused, names in FUSED.items():
        for last in [name for name in where if name.rpartition(".")[2] == names[-1]]:
            above = last.removesuffix(names[-1])
            several = [f"{above}{name}" for name in names]
            if f"{above}{fused}" in where or not where.keys() >= {*several}:
                continue
            places: list[tuple[int, ...]] = [*zip(*(where[name] for name in several), strict=False)]
            for indices in places:
                found: list[Group | None] = [made[i] for i in dict.fromkeys(indices)]
                parts = [g for g in found if g is not None]
                joined = parts[0] if len(parts) == 1 else _joined(parts, alike=len(names) == 2)
                if joined is None or (held := _held(joined, several)) is None:
                    continue
                aliases = (*joined.aliases, Alias(f"{above}{fused}", "diffusers", held))
                for i in indices:
                    made[i] = None
                at = indices[-1]
                made[at] = grown = dataclasses.replace(joined, aliases=aliases)
                for name in grown.modules("diffusers"):
                    where[name] = [at if i in indices else i for i in where.get(name, [at])]
    return [g for g in made if g is not None]


def _held(g: Group, names: Sequence[str]) -> tuple[int, int] | None:
    """start:stop of the parts that modules of diffusers' hold together; None if they do not follow each other."""
    parts = [g.modules("diffusers")[name] for name in names]
    follow = all(above[1] == below[0] for above, below in itertools.pairwise(parts))
    return (parts[0][0], parts[-1][1]) if follow else None


def _joined(parts: Sequence[Group], *, alike: bool) -> Group | None:
    """One group of several that are one module each, on the same inputs; None if they are no such.

    Args:
        alike: whether each has as many rows as the others, should no shape say it.
    """
    names = {layout: [g.names(layout) or () for g in parts] for layout in LAYOUTS}
    inputs = {(g.shape and g.shape[1], g.inputs) for g in parts}
    if len(inputs) > 1 or any(len({*map(len, several)}) > 1 for several in names.values()):
        return None
    if any(len(g.heights) > 1 or g.swapped or g.outputs or not (g.shape or alike) for g in parts):
        return None
    heights = [Fraction(g.shape[0] if g.shape else 1) for g in parts]
    unit = lcm(*(height.denominator for height in heights))
    return dataclasses.replace(
        parts[0],
        **{layout: tuple(itertools.chain(*several)) or None for layout, several in names.items()},
        heights=tuple(int(height * unit) for height in heights),
        shape=parts[0].shape and (sum(heights), parts[0].shape[1]),
        aliases=tuple(alias._replace(parts=(i, i + 1)) for i, g in enumerate(parts) for alias in g.aliases),
    )
