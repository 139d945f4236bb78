"""An adapter of a weight whose two halves of rows change places, as they do from some layouts to others. Exact."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import AdapterError
from .base import Adapter
from .dora import DoRA
from .lora import to_lora
from .on_base import OnBase

__all__ = ["Swapped", "halves_swapped", "with_halves_swapped"]


def halves_swapped(tensor: Tensor) -> Tensor:
    """The second half of the rows above the first."""
    return tensor.roll(tensor.shape[0] // 2, 0)


def with_halves_swapped(adapter: Adapter) -> Adapter:
    """The adapter of the weight whose second half of rows lies above the first, of an even number.

    As a LoRA where its own algebra has no such form, as DoRA has none on an adapter without it; else as `Swapped`.
    """
    if isinstance(adapter, DoRA):
        inner = with_halves_swapped(adapter.inner)
        magnitude = halves_swapped(adapter.magnitude) if adapter.axis == 0 else adapter.magnitude
        return dataclasses.replace(adapter.on(inner), magnitude=magnitude)
    half = adapter.shape[0] // 2
    first, second = adapter.rows(0, half), adapter.rows(half, 2 * half)
    if first is not None and second is not None and first.tensors.keys() == adapter.tensors.keys():
        parts = ((name, second.tensors[name], first.tensors[name], t) for name, t in adapter.tensors.items())
        return adapter.with_tensors({name: _joined(above, below, whole) for name, above, below, whole in parts})
    if isinstance(adapter, OnBase):
        return Swapped(adapter)
    if (lora := to_lora(adapter)) is None:
        raise AdapterError(f"{adapter.title} has no exact LoRA, and no form with its rows in another order")
    return with_halves_swapped(lora)


def _joined(above: Tensor, below: Tensor, whole: Tensor) -> Tensor:
    """Two slices of a factor, one after the other; the factor itself where it has nothing of the rows."""
    if above.shape == whole.shape:
        return whole
    of_rows = [dim for dim, (part, all_) in enumerate(zip(above.shape, whole.shape, strict=False)) if part != all_]
    return torch.cat([above, below], of_rows[0] if above.dim() == whole.dim() else 0).reshape(whole.shape)


@dataclasses.dataclass(frozen=True, eq=False)
class Swapped(OnBase):
    """What `inner`, whose algebra mixes the halves, does to a weight with these in the other order. In no file."""

    title: ClassVar[str] = "adapter of swapped halves"
    tensor_names: ClassVar[tuple[str, ...]] = ()

    inner: OnBase

    def check(self) -> None:
        if self.inner.shape[0] % 2:
            raise AdapterError(f"changes a weight of {self.inner.shape[0]} rows, which have no halves")

    @property
    def algorithm(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.inner.algorithm

    @property
    def shape(self) -> tuple[int, ...]:
        return self.inner.shape

    @property
    def rank(self) -> int | None:
        return self.inner.rank

    @property
    def tensors(self) -> dict[str, Tensor]:
        return self.inner.tensors

    def with_tensors(self, tensors: dict[str, Tensor]) -> Swapped:
        return dataclasses.replace(self, inner=self.inner.with_tensors(tensors))

    def change(self, base: Tensor) -> Tensor:
        return halves_swapped(self.inner.change(halves_swapped(base)))

    def rows(self, start: int, stop: int) -> Swapped | None:
        """The adapter itself for all rows, None for fewer, which the inner one mixes with others."""
        return self if (start, stop) == (0, self.shape[0]) else None
