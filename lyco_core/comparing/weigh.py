"""How large a file's changes are, module by module."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from ..combining import Addend, Base, CombineOptions, Opened, open_all
from ..devices import norm
from ..errors import LycoError, Remedy, about_file
from ..merging import Source
from ..text import counted
from ..workers import workers
from .inner import size
from .modules import block_of, change_of, grouped, kind_of, why_left_out

__all__ = ["Weighed", "weigh_file"]

BAR = 24
"""Characters of a bar for the largest."""

Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class Weight:
    """One module's change."""

    path: str
    norm: float
    """‖ΔW‖, in the Frobenius norm, at strength 1."""
    whole: float | None = None
    """‖W‖ of the model's own weight, where it is known."""


@dataclasses.dataclass(frozen=True)
class Weighed:
    """How large a file's changes are."""

    modules: tuple[Weight, ...]
    left_out: int = 0
    """Modules whose change depends on the model's weights, which were not given."""
    based: bool = False
    """Whether the model was given."""

    @property
    def norm(self) -> float:
        """‖ΔW‖ of all modules together."""
        return _together(self.modules)

    def as_json(self) -> dict[str, Any]:
        """The norms as one JSON object."""
        return {
            "norm": self.norm,
            "not_weighed": self.left_out,
            "modules": {m.path: {"norm": m.norm, "weight_norm": m.whole} for m in self.modules},
        }

    def lines(self) -> list[str]:
        """The norms for a person: by kind of module, and by block."""
        known = all(m.whole is not None for m in self.modules)
        lines = [f"norm of the change: {self.norm:.4g} in all of {counted(len(self.modules), 'module')}"]
        if self.left_out:
            left_out = counted(self.left_out, "module is", "modules are")
            lines.append(f"{left_out} not weighed: {why_left_out(Remedy.MODEL, based=self.based)}")
        for title, name in (("kind of module", kind_of), ("block", block_of)):
            groups = grouped(self.modules, [name(module.path) for module in self.modules])
            lines += ["", f"{'norm':>9}  {'of all':>6}  {'of W':>8}  {title}" if known else _head(title)]
            lines += list(self._rows(groups, known=known))
        return lines

    def _rows(self, groups: Mapping[str, Sequence[Weight]], *, known: bool) -> Iterator[str]:
        whole = self.norm or 1.0
        width = max((len(name) for name in groups), default=0)
        densest = max(map(_mean, groups.values()), default=0.0) or 1.0
        for name, members in groups.items():
            found = _together(members)
            share = f"{(found / whole) ** 2:6.1%}"
            part = f"  {found / math.hypot(*(m.whole or 0.0 for m in members)):8.2e}" if known else ""
            bar = "#" * round(BAR * _mean(members) / densest)
            yield f"{found:9.4g}  {share}{part}  {name:<{width}}  {bar}".rstrip()


def _head(title: str) -> str:
    return f"{'norm':>9}  {'of all':>6}  {title}"


def _together(modules: Sequence[Weight]) -> float:
    return math.hypot(*(m.norm for m in modules))


def _mean(modules: Sequence[Weight]) -> float:
    """The quadratic mean of the norms: groups have unequally many modules."""
    return _together(modules) / math.sqrt(len(modules))


def weigh_file(
    path: str | os.PathLike[str],
    model: str | os.PathLike[str] | None = None,
    *,
    architecture: str | None = None,
    progress: Progress = lambda done, total: None,
) -> Weighed:
    """Weigh every module of an adapter file, from its factors where that is exact.

    Args:
        model: the checkpoint, for the norms of its weights, and for what a DoRA, say, changes of them.

    Raises:
        LycoError: the file is bad, of no family that is known here, or the model is of another.
    """
    (opened,) = open_all([Addend(Source(path))], [1.0], CombineOptions(architecture=architecture))
    with ExitStack() as stack:
        base = None if model is None else stack.enter_context(base_of(model, opened))
        threads = stack.enter_context(workers())
        found: list[Weight] = []

        def weigh(module: str) -> Weight | None:
            return _weight(module, opened, base)

        # Of a model one weight at a time: each may take gigabytes.
        weights = threads.each(weigh, opened.paths) if base is None else map(weigh, opened.paths)
        for done, weight in enumerate(weights, 1):
            if weight is not None:
                found.append(weight)
            progress(done, len(opened.paths))
    if not found:
        with about_file(path):
            raise LycoError("has no change that can be weighed without the model's weights", Remedy.MODEL)
    return Weighed(tuple(found), len(opened.paths) - len(found), model is not None)


def _weight(module: str, opened: Opened, base: Base | None) -> Weight | None:
    """A module's change; None where that depends on the model's weight, and there is no model."""
    with about_file(opened.addend.source.path):
        if (change := change_of(opened, module, base)) is None:
            return None
        found = size(change, module)
    return Weight(module, found, None if base is None or module in opened.encoders else norm(base.weight(module)))


def base_of(model: str | os.PathLike[str], opened: Opened) -> Base:
    """The open checkpoint that the file's changes are computed on."""
    family = opened.adapter_set.architecture
    assert family is not None
    return Base(model, family, opened.layout)
