"""The contract that every algorithm keeps. `tests/adapters/` holds each of them to it."""

from __future__ import annotations

import dataclasses
import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Generator
from contextlib import contextmanager
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from ..errors import AdapterError

__all__ = [
    "ANY",
    "BAKED",
    "CACHE_BAND_BYTES",
    "Adapter",
    "band_size",
    "fits",
    "require_usable_alpha",
    "shape_text",
    "working",
]

A = TypeVar("A", bound="Adapter")

ANY = 0
"""Stands in a shape for a dimension that the adapter does not determine: IA3's inputs, say."""

MOST_ELEMENTS = 2**31
"""How large a weight an adapter may change: some megabytes of factors can spell one of terabytes."""

BAKED = 1e6
"""An alpha from here on says that the scale is in the tensors already: Fizgig writes 1e10, ai-toolkit 9999999999."""

CACHE_BAND_BYTES = 2**21
"""Bytes of float32 that a band may take to be computed in the caches: a core's L2 and a share of the next."""

DEVICE_BAND_BYTES = 2**27
"""The same where every band costs launches of kernels that outlast its arithmetic: a weight of 5120 x 5120 is one."""


@dataclasses.dataclass(frozen=True, eq=False)
class Adapter(ABC):
    """The change to one module's weight, kept as the factors that a trainer saved.

    Either a ΔW that is added to whatever weight there is (`Additive`), or one that is computed from
    the weight (`OnBase`).

    A weight is (out, in) for a linear module and (out, in, *kernel) for a convolution. Where the
    factors are flat, so is `shape`: (out, in·kernel) fits (out, in, *kernel) element for element.
    Arithmetic is float32 whatever the factors' dtype (float64 if the weight is).

    Subclasses add their tensors as fields, named as in the papers, and list them in
    `tensor_names`; a tensor that a form of the algorithm lacks is None.
    """

    algorithm: ClassVar[str]
    """Lower-case id: `lora`, `loha`, `lokr`."""
    title: ClassVar[str]
    """The algorithm's name for people, as the papers write it."""
    tensor_names: ClassVar[tuple[str, ...]]

    alpha: float | None = dataclasses.field(default=None, kw_only=True)
    """The trainer's alpha, or None where the file has none (then the scale is 1)."""

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        cls.__repr__ = Adapter.__repr__  # or `dataclass` would write one for it, with every tensor

    def __repr__(self) -> str:
        """Its algorithm, the weight's shape and its rank: `LoKr([3072, 64], rank 8)`."""
        rank = f", rank {self.rank}" if self.rank is not None else ""
        return f"{self.title}({shape_text(self.shape)}{rank})"

    def __post_init__(self) -> None:
        self.check()
        if math.prod(self.shape) > MOST_ELEMENTS:
            raise AdapterError(
                f"its factors make a weight of {list(self.shape)}, larger than any model has; the file is damaged"
            )
        require_usable_alpha(self)

    @abstractmethod
    def check(self) -> None:
        """Raise `AdapterError` if a tensor is missing or shapes cannot multiply."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """(out, in) or (out, in, *kernel) of the weight that this changes; `ANY` where any number will do."""

    @property
    @abstractmethod
    def rank(self) -> int | None:
        """Inner dimension of the low-rank factors; None where all factors are full matrices."""

    @property
    def scale(self) -> float:
        """alpha / rank; 1 without an alpha or without low-rank factors."""
        if self.alpha is None or self.rank is None:
            return 1.0
        return self.alpha / self.rank

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors that are there, by field name: what a format writes."""
        named = ((name, getattr(self, name)) for name in self.tensor_names)
        return {name: tensor for name, tensor in named if tensor is not None}

    @property
    def stored(self) -> dict[tuple[str, str], Tensor]:
        """(algorithm id, field) -> tensor: all that a format writes but alpha."""
        return {(self.algorithm, name): tensor for name, tensor in self.tensors.items()}

    @property
    def dtype(self) -> torch.dtype:
        """The storage dtype that holds every factor exactly."""
        return functools.reduce(torch.promote_types, (tensor.dtype for tensor in self.tensors.values()))

    @functools.cached_property
    def flat_shape(self) -> tuple[int, int]:
        """`shape` as that of a matrix: (out, in·kernel)."""
        return self.shape[0], math.prod(self.shape[1:])

    def with_tensors(self: A, tensors: dict[str, Tensor]) -> A:
        """A copy with other tensors, by field name."""
        return dataclasses.replace(self, **tensors)

    def to(self: A, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> A:
        """A copy whose tensors are on `device`, in `dtype`; None leaves them where, or as, they are."""
        moved = {name: t.to(device=device, dtype=dtype) for name, t in self.tensors.items()}
        return self.with_tensors(moved)

    def require_fit(self, weight: Tensor) -> None:
        """Raise `AdapterError` if the weight has another shape than the adapter changes."""
        if not fits(self.shape, tuple(weight.shape)):
            raise AdapterError(
                f"the adapter changes a weight of {shape_text(self.shape)}, this one is {list(weight.shape)}"
            )

    @abstractmethod
    def add_to_(self, weight: Tensor, strength: float = 1.0) -> Tensor:
        """Change `weight` in place by `strength` times what the adapter changes, in float32 (float64 if it is so).

        `weight`: `shape`, or any shape with as many rows and as many elements to a row.

        Raises:
            AdapterError: the weight has another shape.
        """

    @abstractmethod
    def add_band_(self, band: Tensor, start: int, strength: float = 1.0) -> Tensor:
        """Change a band of the weight in place, as `add_to_` changes all of it.

        Args:
            band: rows of the weight, (rows, …), of which the first is row `start`.

        Raises:
            AdapterError: the change of these rows depends on others.
        """

    @abstractmethod
    def rows(self, start: int, stop: int) -> Adapter | None:
        """The adapter of rows start:stop of the weight, exact; None where the algebra cannot express it."""


def require_usable_alpha(adapter: Adapter) -> None:
    """Refuse an alpha that would make the change NaN, infinite or nothing.

    An alpha that no rule uses is let through: ai-toolkit stores 9999999999 with full LoKr, which
    an fp16 cast turns into Inf.
    """
    alpha = adapter.alpha
    if alpha is None or adapter.rank is None:
        return
    if not abs(alpha) <= torch.finfo(torch.float32).max:  # also true of NaN
        raise AdapterError(f"alpha is {alpha:g}, expected a finite float32 number; the file is damaged")
    if alpha == 0:
        raise AdapterError("alpha is 0, so the adapter would change nothing; save it with its alpha")


def fits(adapter: tuple[int, ...], weight: tuple[int, ...]) -> bool:
    """Whether an adapter of one shape changes a weight of the other.

    The same rows and as many elements in each: kernels may be flattened into the columns. Or the
    same dimensions but for ones: (6, in) changes Wan's modulation of (1, 6, in).
    """
    if ANY in adapter and len(adapter) == 2 < len(weight):  # a kernel's positions are columns, or alike
        return adapter[0] in (weight[0], ANY) and adapter[1] in (weight[1], math.prod(weight[1:]), ANY)
    if ANY in adapter:
        return len(weight) >= len(adapter) and all(a in (n, ANY) for a, n in zip(adapter, weight, strict=False))
    if not weight or math.prod(adapter) != math.prod(weight):
        return False
    return adapter[0] == weight[0] or [n for n in adapter if n != 1] == [n for n in weight if n != 1]


def shape_text(shape: tuple[int, ...]) -> str:
    """A shape with `any` where the adapter leaves it open."""
    return "[" + ", ".join(str(n) if n else "any" for n in shape) + "]"


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype to compute in for a weight of `dtype`."""
    return dtype if dtype in (torch.float32, torch.float64) else torch.float32


def band_size(elements: int, device: torch.device) -> int:
    """How many lines of `elements` float32 numbers make one band on `device`; at least one."""
    most = CACHE_BAND_BYTES if device.type == "cpu" else DEVICE_BAND_BYTES
    return max(1, most // (4 * elements))


@contextmanager
def working(view: Tensor) -> Generator[Tensor]:
    """`view` itself if it is float32 or wider, else a float32 copy, written back at the end."""
    if compute_dtype(view.dtype) == view.dtype:
        yield view
    else:
        work = view.to(torch.float32)
        yield work
        view.copy_(work)
