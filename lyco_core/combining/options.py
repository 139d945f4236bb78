"""What is combined, and how."""

from __future__ import annotations

import dataclasses
import os
import re

import torch

from ..adapter_set import AdapterSet
from ..adapters import LOW_RANK
from ..approximate.options import ExtractOptions, Limits
from ..errors import LycoError, Remedy, SelectionError
from ..layouts import Layout
from ..merging import Source
from ..selection import EVERYTHING, Selection, parse_block_strength
from .average import Average

__all__ = ["METHODS", "Addend", "CombineOptions", "parse_numbered", "selections"]

METHODS: dict[str, float | None] = {
    "sum": None,
    "ties": 0.2,
    "dare": 0.5,
    "della": 0.5,
    "breadcrumbs": 0.143,
    "slerp": None,
    "knots": 0.2,
}
"""Method -> the share of the numbers that it keeps if nothing else is said: TIES' and Breadcrumbs' their papers'."""


@dataclasses.dataclass(frozen=True)
class Addend:
    """One adapter file, how much of it is added, and which of its modules."""

    source: Source
    selection: Selection = EVERYTHING
    adapters: AdapterSet | None = None
    """Those of no file, not identified; the source's path is then what they are called."""


@dataclasses.dataclass(frozen=True)
class CombineOptions:
    """How adapters are combined; by default they add up, exactly, each module in the smallest form that can hold it."""

    method: str = "sum"
    form: str | None = None
    """`lora`, `loha` or `lokr`; None: for each module what it can stay."""
    limits: Limits | None = None
    """How small, or how exact, an approximation is to be; None: exact, or a LoKr whose W2 is full."""
    factor: int = -1
    """One side of a LoKr's W1; -1 splits evenly."""
    to: Layout | None = None
    """Whose module names the file is to have; None: the first file's."""
    dtype: torch.dtype | None = None
    """Storage dtype; None: the adapters' own where their numbers stay, float32 elsewhere."""
    base: str | os.PathLike[str] | None = None
    """The checkpoint from whose weights the changes of DoRA, OFT and others like them are computed."""
    density: float | None = None
    """The share of each change's numbers that the method keeps; None: the method's own."""
    epsilon: float = 0.2
    """How far apart DELLA's probabilities are."""
    gamma: float = 0.007
    """The share of the largest numbers that Breadcrumbs leaves out."""
    seed: int = 0
    """What DARE and DELLA draw from."""
    average: Average | None = None
    """Instead of strengths: the average over checkpoints of one training."""
    architecture: str | None = None
    """The model family, where names and shapes fit several."""

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise LycoError(f"the method is {self.method!r}, expected {', '.join(METHODS)}")
        if self.average is not None and self.method != "sum":
            raise LycoError(f"an average is a sum of shares, which {self.method} is not; leave one of them out")
        if self.limits is not None and self.form is None:
            object.__setattr__(self, "form", "lora")
        if self.form not in (None, *LOW_RANK):
            raise LycoError(f"the form is {self.form!r}, expected {', '.join(LOW_RANK)}")
        self._require_form()
        self._require_shares()

    def _require_form(self) -> None:
        if self.nearest is None and self.limits is None and self.method not in ("sum", "knots"):
            raise LycoError(
                f"what {self.method} makes of a change is of no low rank, so it has no exact form; say how small it is "
                "to be",
                Remedy.SMALLNESS,
            )

    def _require_shares(self) -> None:
        kept, name = self.kept, self.method
        if not 0 < kept <= 1:
            raise LycoError(f"density is {kept:g}, expected a share above 0, and at most 1")
        if name == "della" and not (self.epsilon >= 0 and kept - self.epsilon / 2 > 0 and kept + self.epsilon / 2 <= 1):
            raise LycoError(
                f"epsilon is {self.epsilon:g}, expected that density {kept:g} and half of it more or less lie between "
                "0 and 1"
            )
        if name == "breadcrumbs" and not (self.gamma >= 0 and kept + self.gamma <= 1):
            raise LycoError(f"gamma is {self.gamma:g}, expected at most 1 together with density {kept:g}")

    @property
    def kept(self) -> float:
        """The share of each change's numbers that the method keeps."""
        return self.density if self.density is not None else METHODS[self.method] or 1.0

    @property
    def nearest(self) -> ExtractOptions | None:
        """How the adapter nearest to a change is found, where one is asked for that has not all of it."""
        if self.limits is None and self.form != "lokr":
            return None
        return ExtractOptions(self.form or "lora", self.limits, self.factor, dtype=self.dtype or torch.float32)


def parse_numbered(text: str, count: int) -> tuple[int | None, str]:
    """(2, rest) of `2:rest`: of the second adapter alone; (None, text) of any other, which is for all.

    Raises:
        SelectionError: there are fewer adapters.
    """
    match = re.fullmatch(r"(\d+):(.*)", text, re.DOTALL)
    if match is None:
        return None, text
    number = int(match[1])
    if not 1 <= number <= count:
        raise SelectionError(f"'{text}' is for adapter {number}, and there are {count}; expected 1 to {count}")
    return number - 1, match[2]


def selections(count: int, include: list[str], exclude: list[str], strengths: list[str]) -> list[Selection]:
    """The selection of each of `count` adapters, from texts of which `N:…` are for the Nth alone.

    Raises:
        SelectionError: one is no regular expression, no strength, or for an adapter that is not there.
    """

    def of(number: int, texts: list[str]) -> list[str]:
        split = [parse_numbered(text, count) for text in texts]
        return [rest for which, rest in split if which in (None, number)]

    return [
        Selection.of(of(n, include), of(n, exclude), map(parse_block_strength, of(n, strengths))) for n in range(count)
    ]
