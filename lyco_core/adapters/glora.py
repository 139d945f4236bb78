"""GLoRA, generalised LoRA (arXiv:2306.07967), as LyCORIS has it: ΔW(W) = (W @ a1 @ a2 + b1 @ b2) * scale."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from torch import Tensor

from ..errors import AdapterError
from .factors import require_matrix, require_product, require_tensors
from .lora import LoRA
from .on_base import OnBase

__all__ = ["GLoRA"]


@dataclasses.dataclass(frozen=True, eq=False)
class GLoRA(OnBase):
    """a1: (in, r), a2: (r, in), on the weight's input channels; b1: (out, r), b2: (r, in, *kernel), bm (r, r, *kernel).

    LyCORIS before 2.0 saved the factors of both products under each other's names: a1, b1 (r, in)
    and a2 (in, r), b2 (out, r).
    """

    algorithm: ClassVar[str] = "glora"
    title: ClassVar[str] = "GLoRA"
    tensor_names: ClassVar[tuple[str, ...]] = ("a1", "a2", "b1", "b2", "bm")

    a1: Tensor
    a2: Tensor
    b1: Tensor
    b2: Tensor
    bm: Tensor | None = None

    def check(self) -> None:
        four = {name: getattr(self, name) for name in self.tensor_names[:4]}
        require_tensors(four, "GLoRA", "a1, a2, b1 and b2")
        for name, tensor in four.items():
            require_matrix(name, tensor)
        (up, down), added = self._factors_on_inputs(), self.added()
        require_product("a1", up, "a2", down)
        if not up.shape[0] == down.shape[1] == added.shape[1]:
            raise AdapterError(
                f"a1 {list(self.a1.shape)} and a2 {list(self.a2.shape)} act on {up.shape[0]} and {down.shape[1]} "
                f"inputs, b1 @ b2 on {added.shape[1]}; the file is damaged"
            )

    @property
    def _swapped(self) -> bool:
        """Whether the factors go by each other's names, as old files have them."""
        ranks = self.b2.shape[1], self.b1.shape[0], self.a1.shape[0], self.a2.shape[1]
        new = self.b1.shape[1], self.b2.shape[0], self.a2.shape[0], self.a1.shape[1]
        return len(set(new)) > 1 and len(set(ranks)) == 1

    def _factors_on_inputs(self) -> tuple[Tensor, Tensor]:
        """(in, r) and (r, in)."""
        up, down = (self.a2, self.a1) if self._swapped else (self.a1, self.a2)
        return up.flatten(1), down.flatten(1)

    def on_inputs(self) -> LoRA:
        """a1 @ a2 * scale as what is added to the input, (in, in): x becomes x + (a1 @ a2) x before it meets W."""
        up, down = self._factors_on_inputs()
        return LoRA(up, down, alpha=self.scale * down.shape[0])

    def added(self) -> LoRA:
        """b1 @ b2 * scale: what does not depend on the weight."""
        up, down = (self.b2, self.b1) if self._swapped else (self.b1, self.b2)
        return LoRA(up, down, self.bm, alpha=self.alpha)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.added().shape

    @property
    def rank(self) -> int:
        return self.added().rank

    def change(self, base: Tensor) -> Tensor:
        up, down = (t.to(base) for t in self._factors_on_inputs())
        # Input channels last, so that a kernel's positions are further rows.
        channels = base.flatten(2).transpose(1, 2) if base.dim() > 2 else base
        turned = channels @ up @ down * self.scale
        if base.dim() > 2:
            turned = turned.transpose(1, 2)
        return self.added().add_to_(turned.reshape(base.shape).contiguous())

    def rows(self, start: int, stop: int) -> GLoRA:
        name = "b2" if self._swapped else "b1"
        return dataclasses.replace(self, **{name: getattr(self, name)[start:stop]})
