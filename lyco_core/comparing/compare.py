"""How two files' changes lie to each other: whether they add up, pass each other by, or fight."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from ..adapters import Additive
from ..combining import Addend, Base, CombineOptions, Opened, open_all, require_one_width
from ..errors import LycoError, Remedy, about_file
from ..merging import Source
from ..text import counted
from ..workers import workers
from .inner import inner, overlap, squares_and_inner
from .modules import block_of, change_of, grouped, kind_of, why_left_out
from .weigh import base_of

__all__ = ["Comparison", "compare_files"]

FIGHTS = -0.1
"""Cosines below are said: of two changes that have nothing to do with each other it is near 0."""

SHOWN = 10

Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class Pair:
    """One weight, as both files change it."""

    path: str
    first: float
    """‖ΔA‖², at its strength; 0 where A does not change the weight."""
    second: float
    product: float
    """⟨ΔA, ΔB⟩."""
    reads: float | None = None
    """How much of the smaller space of inputs lies in the other; None where that says nothing."""
    writes: float | None = None
    """The same of outputs."""

    @property
    def cosine(self) -> float:
        """⟨ΔA, ΔB⟩ / (‖ΔA‖ ‖ΔB‖)."""
        return _cosine([self])


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two files at their strengths."""

    names: tuple[str, str]
    strengths: tuple[float, float]
    pairs: tuple[Pair, ...]
    left_out: int = 0
    """Weights whose change depends on the model's own, which was not given."""
    based: bool = False
    """Whether the model was given."""

    @property
    def both(self) -> list[Pair]:
        """The weights that both change."""
        return [pair for pair in self.pairs if pair.first and pair.second]

    @property
    def norms(self) -> tuple[float, float, float]:
        """‖A‖, ‖B‖ and ‖A + B‖."""
        first, second, product = (math.fsum(column) for column in zip(*map(_numbers, self.pairs), strict=True))
        return math.sqrt(first), math.sqrt(second), math.sqrt(max(0.0, first + second + 2 * product))

    @property
    def cosine(self) -> float:
        """Over all weights; near 0 where they have nothing to do with each other, 1 where they are alike."""
        return _cosine(self.pairs)

    @property
    def balanced(self) -> float | None:
        """What both strengths are multiplied by so that together they are as strong as the stronger one alone."""
        one, other, together = self.norms
        return max(one, other) / together if together > 1e-6 * max(one, other) else None

    def as_json(self) -> dict[str, Any]:
        """The comparison as one JSON object."""
        one, other, together = self.norms
        return {
            "files": [{"file": n, "strength": s} for n, s in zip(self.names, self.strengths, strict=True)],
            "norms": [one, other],
            "norm_together": together,
            "cosine": self.cosine,
            "balanced": self.balanced,
            "not_compared": self.left_out,
            "modules": {p.path: _as_json(p) for p in self.pairs},
        }

    def lines(self) -> list[str]:
        """The comparison for a person."""
        one, other, together = self.norms
        apart = math.hypot(one, other)
        lines = [
            f"{letter}  {name} at strength {strength:.4g}: norm {size:.4g}"
            for letter, name, strength, size in zip("AB", self.names, self.strengths, (one, other), strict=True)
        ]
        alone = [sum(bool(p.first) and not p.second for p in self.pairs)]
        alone.append(sum(bool(p.second) and not p.first for p in self.pairs))
        lines.append(f"both change {counted(len(self.both), 'weight')}, A alone {alone[0]}, B alone {alone[1]}")
        if self.left_out:
            left_out = counted(self.left_out, "weight is", "weights are")
            lines.append(f"{left_out} not compared: {why_left_out(Remedy.BASE, based=self.based)}")
        share = f", {together / apart:.2f} of what two have that are unrelated" if apart else ""
        lines.append(f"together norm {together:.4g}{share}; cosine {self.cosine:+.3f}")
        if self.balanced is not None:
            pair = " ".join(f"{n}@{s * self.balanced:.2f}" for n, s in zip(self.names, self.strengths, strict=True))
            lines.append(f"as strong as the stronger one alone: {pair}")
        for title, name in (("kind of module", kind_of), ("block", block_of)):
            groups = grouped(self.both, [name(pair.path) for pair in self.both])
            if groups:
                lines += ["", f"{'cosine':>6}  {'norm A':>8}  {'norm B':>8}  {'reads':>5}  {'writes':>6}  {title}"]
                lines += [_row(group, members) for group, members in groups.items()]
        return lines + self._fights()

    def _fights(self) -> list[str]:
        worst = sorted((pair for pair in self.both if pair.cosine < FIGHTS), key=lambda pair: pair.cosine)
        if not worst:
            return []
        lines = ["", f"they pull against each other (cosine below {FIGHTS}) in {counted(len(worst), 'weight')}:"]
        lines += [f"  {pair.cosine:+.2f}  {pair.path}" for pair in worst[:SHOWN]]
        return lines if len(worst) <= SHOWN else [*lines, f"  and {len(worst) - SHOWN} more"]


def _numbers(pair: Pair) -> tuple[float, float, float]:
    return pair.first, pair.second, pair.product


def _cosine(pairs: Sequence[Pair]) -> float:
    first, second, product = (math.fsum(column) for column in zip(*map(_numbers, pairs), strict=True))
    return product / math.sqrt(first * second) if first and second else 0.0


def _as_json(pair: Pair) -> dict[str, Any]:
    norms = [math.sqrt(pair.first), math.sqrt(pair.second)]
    cosine = pair.cosine if pair.first and pair.second else None
    return {"norms": norms, "cosine": cosine, "reads": pair.reads, "writes": pair.writes}


def _row(name: str, pairs: Sequence[Pair]) -> str:
    sizes = [math.sqrt(math.fsum(column)) for column in zip(*(_numbers(p)[:2] for p in pairs), strict=True)]
    shared = [_mean([p.reads for p in pairs], 5), _mean([p.writes for p in pairs], 6)]
    return f"{_cosine(pairs):+.3f}  {sizes[0]:8.4g}  {sizes[1]:8.4g}  {'  '.join(shared)}  {name}"


def _mean(shares: Sequence[float | None], width: int) -> str:
    known = [share for share in shares if share is not None]
    return f"{sum(known) / len(known):{width}.2f}" if known else "-".rjust(width)


def compare_files(
    first: Source,
    second: Source,
    *,
    base: str | os.PathLike[str] | None = None,
    architecture: str | None = None,
    progress: Progress = lambda done, total: None,
) -> Comparison:
    """Compare two adapters of one family, of any formats, weight by weight.

    Args:
        base: the checkpoint that they were trained on, for what a DoRA, say, changes of its weights.

    Raises:
        LycoError: a file is bad, they are of two families, or a strength is 0.
    """
    options = CombineOptions(base=base, architecture=architecture)
    if not (first.strength and second.strength):
        raise LycoError("a strength is 0, so there is nothing to compare; give strengths that are not")
    a, b = open_all([Addend(first), Addend(second)], [first.strength, second.strength], options)
    require_one_width([a, b])
    paths = list(dict.fromkeys([*a.paths, *b.paths]))
    pairs: list[Pair] = []
    with ExitStack() as stack:
        weights = None if base is None else stack.enter_context(base_of(base, a))
        threads = stack.enter_context(workers())

        def pair_of(path: str) -> Pair | None:
            return _pair(path, a, b, weights)

        # Of a base one weight at a time: each may take gigabytes.
        for done, pair in enumerate(threads.each(pair_of, paths) if weights is None else map(pair_of, paths), 1):
            if pair is not None:
                pairs.append(pair)
            progress(done, len(paths))
    if not pairs:
        raise LycoError("nothing of the two can be compared without the model's weights", Remedy.BASE)
    left_out = len(paths) - len(pairs)
    return Comparison((a.name, b.name), (a.strength, b.strength), tuple(pairs), left_out, base is not None)


def _pair(path: str, a: Opened, b: Opened, base: Base | None) -> Pair | None:
    """How both files change a weight; None where that depends on the weight, and there is no base."""
    changes: list[Additive | None] = []
    for one in (a, b):
        if path not in one.changes and path not in one.encoders:
            changes.append(None)
            continue
        with about_file(one.addend.source.path):
            if (change := change_of(one, path, base)) is None:
                return None
        changes.append(change)
    first, second = changes
    if first is None or second is None:
        one, other = (0.0 if change is None else max(0.0, inner(change, change)) for change in changes)
        return Pair(path, one, other, product=0.0)
    one, other, product = squares_and_inner(first, second)
    return Pair(path, max(0.0, one), max(0.0, other), product, *(overlap(first, second) or (None, None)))
