"""LoRA (arXiv:2106.09685), and LoCon for convolutions: ΔW = up @ down * scale."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar, overload

import torch
from torch import Tensor

from ..devices import COMPLETE, add_product_
from ..fused import Half
from .additive import Additive
from .base import Adapter, band_size, compute_dtype, working
from .by_type import ByType
from .factors import low_rank, require_matrix, require_product, require_tensors

__all__ = ["LoRA", "cut", "lora_rank", "to_lora"]


@dataclasses.dataclass(frozen=True, eq=False)
class LoRA(Additive):
    """up: (out, r) or (out, r, 1, 1); down: (r, in) or (r, in, *kernel); mid: (r, r, *kernel), Tucker.

    With `mid`, LyCORIS's LoCon keeps up as (out, r, 1, 1) and down as (r, in, 1, 1).
    """

    algorithm: ClassVar[str] = "lora"
    title: ClassVar[str] = "LoRA"
    tensor_names: ClassVar[tuple[str, ...]] = ("up", "down", "mid")

    up: Tensor
    down: Tensor
    mid: Tensor | None = None

    def check(self) -> None:
        require_tensors({"up": self.up, "down": self.down}, "LoRA", "up and down")
        if self.mid is None:
            require_product("up", self.up, "down", self.down)
        else:
            require_matrix("up", self.up)
            require_matrix("down", self.down)
            up, down = (t.reshape(t.shape[:2]) if t[0, 0].numel() == 1 else t for t in (self.up, self.down))
            require_product("up", up.transpose(0, 1), "down", down, "mid", self.mid)

    @property
    def shape(self) -> tuple[int, ...]:
        kernel = self.down.shape[2:] if self.mid is None else self.mid.shape[2:]
        return (self.up.shape[0], self.down.shape[1], *kernel)

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    def factors(self, dtype: torch.dtype | None, device: torch.device) -> tuple[Tensor, Tensor]:
        """(out, r) and (r, in·kernel), unscaled."""
        if self.mid is None:
            return low_rank(self.up, self.down, None, dtype, device)
        return low_rank(self.up.flatten(1).t(), self.down.flatten(1), self.mid, dtype, device)

    def halves(self, device: torch.device) -> Sequence[Half]:
        return (Half(*self.factors(None, device)),)

    def _add_to_(self, flat: Tensor, factor: float) -> None:
        up, down = self.factors(compute_dtype(flat.dtype), flat.device)
        whole = flat.dtype == up.dtype and flat.device.type in COMPLETE  # nothing is made beside it
        step = flat.shape[0] if whole else band_size(flat.shape[1], flat.device)
        for start in range(0, flat.shape[0], step):
            with working(flat[start : start + step]) as band:
                add_product_(band, up[start : start + step], down, factor)

    def apply(self, x: Tensor) -> Tensor:
        up, down = self.factors(x.dtype, x.device)
        return (x @ down.t()) @ (up.t() * self.scale)  # the output is the largest of all: not touched twice

    def _apply_to_(self, x: Tensor, output: Tensor, factor: float) -> None:
        up, down = self.factors(x.dtype, x.device)
        output.addmm_(x @ down.t(), up.t(), alpha=factor)

    def rows(self, start: int, stop: int) -> LoRA:
        return dataclasses.replace(self, up=self.up[start:stop])


@ByType
def to_lora(adapter: Adapter) -> LoRA | None:
    """A LoRA with the same ΔW, its tensors in float32; None where there is none."""
    ...


@ByType
def lora_rank(adapter: Adapter) -> int:
    """The rank of what `to_lora` gives, without making it. Raises `AdapterError` where that needs the weight."""
    ...


@to_lora.register(LoRA)
def _(adapter: LoRA) -> LoRA:
    return adapter.to(dtype=torch.float32)


@lora_rank.register(LoRA)
def _(adapter: LoRA) -> int:
    return adapter.rank


@overload
def cut(adapter: Additive, start: int, stop: int) -> Additive | None: ...
@overload
def cut(adapter: Adapter, start: int, stop: int) -> Adapter | None: ...
def cut(adapter: Adapter, start: int, stop: int) -> Adapter | None:
    """The adapter of rows start:stop of the weight, exact, if need be as a LoRA; None where neither can be cut."""
    piece = adapter.rows(start, stop)
    return piece if piece is not None or (lora := to_lora(adapter)) is None else lora.rows(start, stop)
