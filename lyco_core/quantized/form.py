"""The contract of a form in which a file keeps a weight: several tensors, from which rows of numbers are read."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, cast

import torch
from torch import Tensor

from ..io import TensorInfo

__all__ = ["Form", "Found", "RoleTensors", "Unreadable"]

RoleTensors = Mapping[str, Tensor]
"""Role -> tensor: `weight` and what stands beside it, of some rows or whole."""


class Unreadable(Exception):
    """The tensors of a weight do not make the form that they are said to be; the text ends "is stored as …"."""


@dataclasses.dataclass(frozen=True)
class Found:
    """A weight as a file has it."""

    key: str
    infos: Mapping[str, TensorInfo]
    """Role -> the header's entry: `weight`, and by their last name all tensors of its module."""
    said: Mapping[str, object]
    """What the file says of the form: ComfyUI's `comfy_quant`."""

    @property
    def weight(self) -> TensorInfo:
        """The entry of the numbers themselves."""
        return self.infos["weight"]

    def number(self, name: str, default: int) -> int:
        """A whole number that the file says of the form."""
        value = self._word(name, default)
        if not isinstance(value, int) or value < 1:
            raise Unreadable(f"{self.said.get('format')} with {name} {value!r}, expected a whole number")
        return value

    def flag(self, name: str) -> bool:
        """Whether the file says so of the form."""
        return bool(self._word(name, False))

    def _word(self, name: str, default: object) -> object:
        """What the file says by itself, or among `params`."""
        params = self.said.get("params")
        inner = cast(dict[str, object], params) if isinstance(params, dict) else {}
        return self.said.get(name, inner.get(name, default))

    def require(self, title: str, dtypes: Mapping[str, tuple[str, ...]]) -> None:
        """Raise `Unreadable` unless each role is there, in one of its dtypes, and the weight is a matrix."""
        for role, allowed in dtypes.items():
            if role not in self.infos:
                raise Unreadable(f"{title} whose {role} is missing")
            if self.infos[role].dtype not in allowed:
                raise Unreadable(f"{title} whose {role} is {self.infos[role].dtype}, expected {' or '.join(allowed)}")
        if len(self.weight.shape) != 2:
            raise Unreadable(f"{title} of shape {list(self.weight.shape)}, expected a matrix")


@dataclasses.dataclass(frozen=True)
class Form(ABC):
    """How one weight lies in a file, and how numbers become it.

    Numbers are float32 rows (n, columns) in the form's own basis, which `turn` leads into and
    `straighten` out of: columns are rotated, or multiplied, before they are rounded.
    """

    found: Found
    shape: tuple[int, ...]
    """The shape of the weight that it stands for."""

    title: ClassVar[str]
    step: ClassVar[int] = 1
    """Bands begin at multiples of so many rows."""
    holds_nan: ClassVar[bool] = False
    """Whether it can hold numbers that are NaN."""
    shows_nan: ClassVar[bool] = False
    """Whether a number that is not finite shows in its floating-point scales."""
    stochastic: ClassVar[bool] = True
    """Whether it can be rounded stochastically."""

    @property
    def rows(self) -> int:
        """How many rows the weight has."""
        return self.shape[0]

    @property
    def columns(self) -> int:
        """How many numbers a row of the weight has."""
        return torch.Size(self.shape[1:]).numel()

    @property
    def upright(self) -> bool:
        """Whether its basis is the weight's own, so that `turn` and `straighten` do nothing."""
        return True

    @property
    def isometric(self) -> bool:
        """Whether lengths in its basis are those of the weight."""
        return True

    @property
    def unavailable(self) -> str | None:
        """Why it can be neither read nor written here, or None."""
        return None

    @property
    def unwritable(self) -> str | None:
        """Why nothing is rounded to it, or None."""
        return None

    @property
    def name(self) -> str:
        """The format's name for people, with what tells this weight's from others."""
        return self.title

    @property
    def fixed(self) -> tuple[str, ...]:
        """Roles that are there once for all rows."""
        return self.rescaled

    @property
    @abstractmethod
    def beside(self) -> tuple[str, ...]:
        """Roles besides `weight` that have a part for each row."""

    @property
    def written(self) -> tuple[str, ...]:
        """Roles that are written again when the weight changes."""
        return ("weight", *self.beside, *self.rescaled)

    @property
    def rescaled(self) -> tuple[str, ...]:
        """Fixed roles that `scale_of` gives, once it has seen the whole weight's largest number, or `table_of`."""
        return ()

    @property
    def sample(self) -> Tensor | None:
        """Numbers of the rows that `table_of` is to see; None where `scale_of` gives the `rescaled` parts."""
        return None

    def height(self, role: str) -> int:
        """How many rows a tensor has, those that fill it up among them."""
        return self.found.infos[role].shape[0]

    def place(self, role: str, start: int, stop: int) -> tuple[int, int]:
        """First byte, and the one after the last, of rows start:stop in a tensor."""
        size = self.found.infos[role].bytes
        each = size // self.height(role)
        return start * each, size if stop == self.rows else stop * each

    @abstractmethod
    def decode(self, parts: RoleTensors) -> Tensor:
        """The numbers of the rows that `parts` hold, new or in memory of the thread's."""

    @abstractmethod
    def encode(self, values: Tensor, parts: RoleTensors, generator: torch.Generator | None) -> dict[str, Tensor]:
        """Rows of numbers -> role -> tensor; `parts` has the fixed ones, `generator` the draws if there are any.

        May change `values`, by what rounds to the same.

        Raises:
            MergeError: a number is out of range.
        """

    def scale_of(self, peak: Tensor) -> dict[str, Tensor]:
        """The `rescaled` parts for a weight whose largest magnitude is `peak`."""
        raise NotImplementedError

    def table_of(self, rows: Tensor) -> dict[str, Tensor]:
        """The `rescaled` parts for a weight whose `sample` these rows are."""
        raise NotImplementedError

    def turn(self, values: Tensor, parts: RoleTensors) -> Tensor:
        """Rows of the weight, or of a change of it, in the form's basis; may be in place."""
        return values

    def straighten(self, values: Tensor, parts: RoleTensors) -> Tensor:
        """Rows in the form's basis -> rows of the weight; may be in place."""
        return values
