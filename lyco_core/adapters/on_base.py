"""Adapters whose change is computed from the weight that they change: DoRA, GLoRA, IA3, OFT, BOFT."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, NoReturn

import torch
from torch import Tensor

from ..errors import AdapterError
from .base import ANY, Adapter, compute_dtype, fits, shape_text

if TYPE_CHECKING:
    from .loha import LoHa
    from .lora import LoRA

__all__ = ["OnBase", "along"]


class OnBase(Adapter):
    """W' = W + ΔW(W). A strength multiplies ΔW(W), so that 0 is W, 1 is what was trained, and all between is linear.

    W is the weight as it is when the adapter is applied: several such adapters act one after the
    other. Only `add_to_` applies them; there is no ΔW alone, and nothing acts beside the weight.
    """

    needs_base: ClassVar[bool] = True

    @abstractmethod
    def change(self, base: Tensor) -> Tensor:
        """ΔW(W), a new tensor like `base`: (out, in) or (out, in, *kernel), float32 or float64."""

    def add_to_(self, weight: Tensor, strength: float = 1.0) -> Tensor:
        """`weight += strength * ΔW(weight)` in place, in float32 (float64 if the weight is).

        Raises:
            AdapterError: the weight has another shape.
        """
        if not fits(self.shape, tuple(weight.shape)):
            raise AdapterError(
                f"the adapter changes a weight of {shape_text(self.shape)}, this one is {list(weight.shape)}"
            )
        if strength != 0:
            base = weight.to(compute_dtype(weight.dtype))
            if ANY not in self.shape:
                base = base.reshape(self.shape)
            weight.copy_(torch.add(base, self.change(base), alpha=strength).reshape(weight.shape))
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

    def delta_weight(self, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None) -> Tensor:
        """Raises `AdapterError`: there is none without the weight."""
        del dtype, device
        self.refuse("delta weight")

    def apply(self, x: Tensor) -> Tensor:
        """Raises `AdapterError`: the output depends on the weight too."""
        del x
        self.refuse("output")

    def refuse(self, what: str) -> NoReturn:
        """Raise `AdapterError`: `what` is asked for, which there is not without the weight."""
        raise AdapterError(
            f"a {self.title} changes a weight by that weight's own numbers, so there is no {what} without it; "
            "load it onto the model, or merge it"
        )

    def _add_to_(self, flat: Tensor, factor: float) -> None:
        raise NotImplementedError  # add_to_ has no use for it

    def to_lora(self) -> LoRA | None:
        return None

    @property
    def lora_rank(self) -> int:
        return 0

    def to_loha(self) -> LoHa | None:
        return None


def along(vector: Tensor, axis: int, base: Tensor) -> Tensor:
    """`vector`, with one number for each row (axis 0) or column (axis 1), so that it multiplies `base`."""
    shape = [1] * base.dim()
    shape[axis] = -1
    return vector.to(base).reshape(shape)
