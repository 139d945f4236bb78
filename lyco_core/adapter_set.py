"""One file's adapters by module path, with what the file says about itself."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from .adapters import Adapter, with_scale
from .layouts import NAMES, Layout
from .text import clipped, one_line, shorten

if TYPE_CHECKING:
    from .architectures import Architecture
    from .formats import Format

__all__ = ["AdapterSet"]


@dataclasses.dataclass(frozen=True, repr=False)
class AdapterSet:
    """The adapters of one file.

    `formats.parse` makes it with module names as the file spells them; `architectures.identify`
    turns those into dotted module paths of a `layout` where it knows the model family.
    """

    adapters: Mapping[str, Adapter]
    """Module path -> adapter, in the file's order."""
    prefixes: Mapping[str, str]
    """Module path -> what its keys in the file begin with, e.g. `lora_unet_blocks_0_ffn_0`."""
    format: Format | None
    """How the modules are spelled; None where no format that is known spells them so."""
    metadata: Mapping[str, str]
    alpha_tensors: Mapping[str, Tensor] = dataclasses.field(default_factory=dict[str, Tensor])
    """Module path -> its alpha as the file has it, for those that have one."""
    unrecognised: Mapping[str, Tensor] = dataclasses.field(default_factory=dict[str, Tensor])
    """Key -> tensor of what belongs to none of `adapters`."""
    foreign: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str])
    """Key -> what it is: known to be no adapter's, and left out."""
    idle: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str])
    """What the keys of a module begin with -> why it counts for nothing: it is off, or there twice."""
    keys: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict[str, Mapping[str, str]])
    """What the keys of a module begin with -> suffix -> key as the file has it, for the next file to have it too."""
    architecture: Architecture | None = None
    """The model family; None where it is unknown."""
    doubt: str = ""
    """Where it is unknown, the family that comes nearest and what rules it out."""
    also: tuple[Architecture, ...] = ()
    """Other families that have all of its modules, and on the same weights: a part of a model need not tell which."""
    layout: Layout | None = None
    """Whose module names the paths are."""
    exceptions: Mapping[str, Layout] = dataclasses.field(default_factory=dict[str, Layout])
    """Module path -> whose name it is, where that is not `layout`'s: some files mix them."""
    names: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str])
    """Name as the file spells it -> module path, of the modules that the family has."""

    @property
    def family(self) -> str:
        """The title of its family, or of each that it may be for; empty where it is unknown."""
        told = (*([] if self.architecture is None else [self.architecture]), *self.also)
        return " or ".join(family.title for family in told)

    def __repr__(self) -> str:
        """What it holds, for which model, by whose names: `AdapterSet(14 LoKr, Z-Image, Musubi's names)`."""
        parts = [", ".join(f"{count} {title}" for title, count in self.titles.items()) or "no adapters"]
        if self.architecture is not None:
            parts.append(self.family)
        if self.layout is not None:
            parts.append(NAMES[self.layout])
        elif self.format is not None:
            parts.append(self.format.title)
        return f"{type(self).__name__}({', '.join(parts)})"

    def with_scale(self, scale: float | None) -> AdapterSet:
        """A copy whose products are multiplied by `scale` instead of alpha / rank, for files whose rule is disputed.

        A LoKr of full matrices, which no alpha scales, is scaled too. What has no scale stays. None: the set itself.
        """
        if scale is None:
            return self
        return dataclasses.replace(self, adapters={path: with_scale(a, scale) for path, a in self.adapters.items()})

    def without(self, modules: Mapping[str, str]) -> AdapterSet:
        """A copy without `modules`, which are kept in `idle`: path -> why it counts for nothing."""
        adapters = {path: adapter for path, adapter in self.adapters.items() if path not in modules}
        prefixes = {path: prefix for path, prefix in self.prefixes.items() if path not in modules}
        idle = {self.prefixes[path]: why for path, why in modules.items()}
        if not modules:
            return self
        return dataclasses.replace(self, adapters=adapters, prefixes=prefixes, idle={**self.idle, **idle})

    @property
    def left_out(self) -> list[str]:
        """What of the file is left out for good reason, a line for each reason."""
        named: dict[tuple[str, str], list[str]] = {}
        for what, reasons in (("module", self.idle), ("key", self.foreign)):
            for name, why in reasons.items():
                named.setdefault((what, why), []).append(name)
        return [
            f"{len(names)} {what}{'s' * (len(names) > 1)} ({one_line(clipped(shorten(names), 300))}): {why}"
            for (what, why), names in named.items()
        ]

    @property
    def unrecognised_keys(self) -> tuple[str, ...]:
        """Keys that belong to none of `adapters` and are not known to be foreign."""
        return tuple(self.unrecognised)

    @property
    def algorithms(self) -> dict[str, int]:
        """Algorithm id -> how many modules use it."""
        return dict(Counter(adapter.algorithm for adapter in self.adapters.values()))

    @property
    def titles(self) -> dict[str, int]:
        """Algorithm as people read it, `LoKr with DoRA` say -> how many modules use it."""
        return dict(Counter(adapter.title for adapter in self.adapters.values()))

    @property
    def ranks(self) -> list[int]:
        """The ranks that occur, ascending; a full-matrix LoKr has none."""
        return sorted({a.rank for a in self.adapters.values() if a.rank is not None})

    @property
    def alphas(self) -> list[float]:
        """The alphas that scale something, ascending; a full-matrix LoKr's is not used."""
        return sorted({a.alpha for a in self.adapters.values() if a.alpha is not None and a.rank is not None})
