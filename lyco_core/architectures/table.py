"""A model family as a table, and how a module is found in another layout."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from fractions import Fraction

from ..layouts import LAYOUTS, Layout
from .fused import with_fused_names
from .group import Group, Shape, Target, group, inside, inside_all, renamed, same, with_aliases
from .templates import split, templates_of
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
    "with_aliases",
]


@dataclasses.dataclass(frozen=True, eq=False)
class _Module:
    """What a module's name in one layout means."""

    group: Group
    parts: tuple[int, int]
    """start:stop of the group's parts that it holds."""

    @property
    def shape(self) -> Shape | None:
        """(out, in) in widths of the model, where the family fixes it."""
        return self.group.shape_of(self.parts)


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A model family as data. Only what breaks ties, depths and widths, knows of models' sizes."""

    id: str
    title: str
    groups: tuple[Group, ...]
    depths: Mapping[str, int]
    """Start of a block's name in Musubi's layout -> how many the largest model has: a block beyond is another
    family's. If the family is trained, the Linear modules of these blocks are."""
    widths: tuple[int, ...] = ()
    """The widths of all the models that there are: a file of another is another family's. Empty: any will do."""
    sizes: Mapping[int, Mapping[str, int]] = dataclasses.field(default_factory=dict[int, Mapping[str, int]])
    """Width of a model -> `depths` of those that are so wide, where models differ in both."""
    twins: tuple[str, ...] = ()
    """Ids of families whose blocks have the same names and shapes, though one's adapters are nothing to the other: a
    file that fits both is told as neither."""
    training: TrainedFamily | None = None
    """What training needs to know; None: neither Musubi Tuner nor this trains LoHa and LoKr of it."""
    comfyui_takes: Layout = "comfyui"
    """Whose names stock ComfyUI's key map takes below `diffusion_model.` without losing rows: where it
    addresses rows of a fused weight by diffusers' names, adapters need not be fused for it."""
    diffusers_prefix: str = "transformer."
    """What stands before diffusers' names in its files."""
    diffsynth_head: int = 0
    """How many rows each head's queries have, where DiffSynth's fused attention goes head by head; 0: nowhere."""
    musubi_lora_only: bool = False
    """Whether Musubi Tuner trains and reads LoRA of it, but no LoHa and LoKr."""
    diffusers_fuses: bool = False
    """Whether diffusers' loader fuses the attention of its model for a LoKr that has it fused."""

    def __post_init__(self) -> None:
        for block in self.depths:
            if not any(name.startswith(f"{block}.{{n}}.") for g in self.groups for name in g.musubi or ()):
                raise ValueError(f"{self.id}: there is no block {block}.{{n}} in Musubi's layout")
        if any(
            width not in self.widths or not depths.keys() <= self.depths.keys() for width, depths in self.sizes.items()
        ):
            raise ValueError(f"{self.id}: a size has a width or a block that the family has not")

    @functools.cached_property
    def _index(self) -> dict[Layout, dict[str, tuple[_Module, ...]]]:
        """Layout -> template -> the module that it means; several where a module's shape tells which."""
        index: dict[Layout, dict[str, tuple[_Module, ...]]] = {layout: {} for layout in LAYOUTS}
        for rows in with_fused_names(self.groups):
            for layout in LAYOUTS:
                for name, parts in rows.modules(layout).items():
                    others, module = index[layout].get(name, ()), _Module(rows, parts)
                    if any(None in (module.shape, other.shape) or module.shape == other.shape for other in others):
                        raise ValueError(f"{self.id}: {layout} has {name} twice")
                    index[layout][name] = (*others, module)
        return index

    @functools.cached_property
    def _routes(self) -> dict[tuple[Layout, Layout], dict[_Module, list[Target]]]:
        """(source, target) -> module -> `locate` of it, filled as it is asked for: blocks are alike."""
        return {}

    @functools.cached_property
    def _underscored(self) -> dict[Layout, dict[str, str]]:
        """Layout -> template with every dot as an underscore -> template."""
        return {layout: {t.replace(".", "_"): t for t in self._index[layout]} for layout in LAYOUTS}

    @functools.cached_property
    def _dotted(self) -> dict[Layout, dict[str, str]]:
        return {layout: {t: t for t in self._index[layout]} for layout in LAYOUTS}

    def templates(self, layout: Layout) -> list[str]:
        """Every module name of `layout` that a file is written with, with `{n}` for a block's number."""
        index = self._index[layout].items()
        return [name for name, found in index if any(name in (module.group.names(layout) or ()) for module in found)]

    def resolve(self, name: str, layout: Layout, *, underscored: bool) -> str | None:
        """The dotted module path that `name` means in `layout`, or None if there is none."""
        template, number = split(name, known := self.spellings(layout, underscored=underscored))
        if template not in known or (not number and "{n}" in template):  # a file can say `{n}` itself
            return None
        return known[template].replace("{n}", number)

    def spellings(self, layout: Layout, *, underscored: bool) -> Mapping[str, str]:
        """Every name of a module in `layout`, with `{n}` for a block's number, as it is spelled -> with its dots."""
        return self._underscored[layout] if underscored else self._dotted[layout]

    def template_of(self, path: str, layout: Layout) -> tuple[str, str]:
        """(the module path with `{n}` for its block's number, that number); the number is empty outside of blocks."""
        return split(path, self._index[layout])

    def group_of(self, path: str, layout: Layout) -> tuple[Group, int]:
        """The group of a module path, and its first part that the module holds. Raises KeyError."""
        found = self._module(self.template_of(path, layout)[0], layout)
        return found.group, found.parts[0]

    def fits(self, path: str, layout: Layout, shape: tuple[int, int]) -> bool:
        """Whether a module of (out, in) is possible at `path`: the family fixes some ratios and sizes."""
        found = self._module(self.template_of(path, layout)[0], layout, shape)
        return found.group.fits(found.parts, shape)

    def width(self, path: str, layout: Layout, shape: tuple[int, int]) -> int | Fraction | None:
        """The width of the model that a module of (out, in) at `path` is in; None where the family fixes no shape."""
        group = self._module(self.template_of(path, layout)[0], layout, shape).group
        return None if group.shape is None else Fraction(shape[1]) / group.shape[1]

    def depths_at(self, width: float) -> Mapping[str, int]:
        """`depths` of the largest model of a width."""
        return {**self.depths, **self.sizes.get(int(width), {})}

    def locate(self, path: str, source: Layout, target: Layout, shape: tuple[int, int] | None = None) -> list[Target]:
        """Where the rows of `path` lie in `target`, top to bottom; empty if it has no such module.

        Args:
            shape: (out, in) of the module, 0 for what is not known, where modules of several shapes have its name.
        """
        template, number = self.template_of(path, source)
        found = self._module(template, source, shape)
        routes = self._routes.setdefault((source, target), {})
        if found not in routes:
            routes[found] = found.group.targets(found.parts, source, target)
        if not number:
            return routes[found]
        return [Target(t.path.replace("{n}", number), *t[1:]) for t in routes[found]]

    def fused_name(self, path: str, source: Layout, target: Layout) -> str | None:
        """What `target` calls a module of all the rows of `path` at once, though files have them apart there."""
        template, number = self.template_of(path, source)
        found = self._module(template, source)
        names = (a.name for a in found.group.aliases if a.layout == target and a.parts == found.parts)
        return next((name.replace("{n}", number) for name in names), None)

    def keeps_names(self, path: str, source: Layout, target: Layout) -> bool:
        """Whether `target` calls the modules nearest to `path` as `source` does: then also a norm that no table has."""
        if source == target:
            return True
        names = self.templates(source)
        for above in sorted(_above(path), key=lambda name: -name.count(".")):
            if near := [name for name in names if name.startswith(above)]:
                return all([name] == [t.path for t in self.locate(name, source, target)] for name in near)
        return False

    def _module(self, template: str, layout: Layout, shape: tuple[int, int] | None = None) -> _Module:
        """The one that `template` means for a module of that shape; the first where that does not tell."""
        found = self._index[layout][template]
        if len(found) == 1 or shape is None:
            return found[0]
        out, inputs = shape
        shapes = [(out, inputs)] if inputs else [(out, width) for width in self.widths]
        return next((m for m in found if any(m.group.fits(m.parts, shape) for shape in shapes)), found[0])


def _above(path: str) -> set[str]:
    """What the names of modules begin with that lie in the same module as `path` does, or in one above it."""
    names = (path, *(template for template, _ in templates_of(path)))
    return {name[:end] for name in names for end in (0, *(n + 1 for n, sign in enumerate(name) if sign == "."))}
