"""Adapters whose change is computed from the weight that they change: DoRA, BoRA, GLoRA, IA3, OFT,
OFTv2, BOFT."""

from __future__ import annotations

from abc import abstractmethod
from typing import NoReturn

from torch import Tensor

from ..errors import AdapterError, Remedy
from .base import ANY, Adapter, compute_dtype
from .loha import to_loha
from .lora import lora_rank, to_lora

__all__ = ["OnBase", "along"]


class OnBase(Adapter):
    """W' = W + ΔW(W). A strength multiplies ΔW(W), so that 0 is W, 1 is what was trained, and all between is linear.

    W is the weight as it is when the adapter is applied: several such adapters act one after the
    other. There is no ΔW alone; what they do beside the weight is found in `beside/`.
    """

    @abstractmethod
    def change(self, base: Tensor) -> Tensor:
        """ΔW(W), a new tensor like `base`: (out, in) or (out, in, *kernel), float32 or float64."""

    def add_to_(self, weight: Tensor, strength: float = 1.0) -> Tensor:
        """`weight += strength * ΔW(weight)` in place, in float32 (float64 if the weight is).

        Raises:
            AdapterError: the weight has another shape.
        """
        self.require_fit(weight)
        if strength != 0:
            base = weight.to(compute_dtype(weight.dtype))
            if ANY not in self.shape:
                base = base.reshape(self.shape)
            base.add_(self.change(base), alpha=strength)
            # A copy was changed; where it lies tells nothing of tensors that have no address, such as a wrapper's.
            if base.dtype != weight.dtype or base.data_ptr() != weight.data_ptr():
                weight.copy_(base.reshape(weight.shape))
        return weight

    def add_band_(self, band: Tensor, start: int, strength: float = 1.0) -> Tensor:
        """`band += strength * ΔW(W)[start : …]`, where the algebra has rows of their own.

        Raises:
            AdapterError: the rows depend on others.
        """
        piece = self.rows(start, start + band.shape[0])
        if piece is None:
            self.refuse("band of rows")
        return piece.add_to_(band, strength)

    def refuse(self, what: str, remedy: Remedy = Remedy.APPLY) -> NoReturn:
        """Raise `AdapterError`: there is no `what` (LoRA, delta weight) without the weight."""
        why = f"{self.title} changes a weight by that weight's own numbers, so there is no {what} without it"
        raise AdapterError(why, remedy)


@to_lora.register(OnBase)
def _(adapter: OnBase) -> None:
    return None


@to_loha.register(OnBase)
def _(adapter: OnBase) -> None:
    return None


@lora_rank.register(OnBase)
def _(adapter: OnBase) -> int:
    adapter.refuse("LoRA")


def along(vector: Tensor, axis: int, base: Tensor) -> Tensor:
    """`vector`, one number for each row (axis 0) or column (axis 1), in a shape that multiplies `base`."""
    shape = [1] * base.dim()
    shape[axis] = -1
    return vector.to(base).reshape(shape)
