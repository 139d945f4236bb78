"""LoRA (arXiv:2106.09685), and LoCon for convolutions: ΔW = up @ down * scale."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from ..devices import COMPLETE, add_product_
from .base import Adapter, band_size, compute_dtype, working
from .factors import low_rank, matrix, multiplies, require

if TYPE_CHECKING:
    from .loha import LoHa

__all__ = ["LoRA"]


@dataclasses.dataclass(frozen=True, eq=False)
class LoRA(Adapter):
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
        require({"up": self.up, "down": self.down}, "LoRA", "up and down")
        if self.mid is None:
            multiplies("up", self.up, "down", self.down)
        else:
            matrix("up", self.up)
            matrix("down", self.down)
            up, down = (t.reshape(t.shape[:2]) if t[0, 0].numel() == 1 else t for t in (self.up, self.down))
            multiplies("up", up.transpose(0, 1), "down", down, "mid", self.mid)

    @property
    def shape(self) -> tuple[int, ...]:
        kernel = self.down.shape[2:] if self.mid is None else self.mid.shape[2:]
        return (self.up.shape[0], self.down.shape[1], *kernel)

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    def factors(self, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
        """(out, r) and (r, in·kernel), unscaled."""
        if self.mid is None:
            return low_rank(self.up, self.down, None, dtype, device)
        return low_rank(self.up.flatten(1).t(), self.down.flatten(1), self.mid, dtype, device)

    def _add_to_(self, flat: Tensor, factor: float) -> None:
        up, down = self.factors(compute_dtype(flat.dtype), flat.device)
        whole = flat.dtype == up.dtype and flat.device.type in COMPLETE  # nothing is made beside it
        step = flat.shape[0] if whole else band_size(flat.shape[1])
        for start in range(0, flat.shape[0], step):
            with working(flat[start : start + step]) as band:
                add_product_(band, up[start : start + step], down, factor)

    def apply(self, x: Tensor) -> Tensor:
        up, down = self.factors(x.dtype, x.device)
        return (x @ down.t()) @ (up.t() * self.scale)  # the output is the largest of all: not touched twice

    def rows(self, start: int, stop: int) -> LoRA:
        return dataclasses.replace(self, up=self.up[start:stop])

    def to_lora(self) -> LoRA:
        return dataclasses.replace(self, **{n: t.to(torch.float32) for n, t in self.tensors.items()})

    @property
    def lora_rank(self) -> int:
        return self.rank

    def to_loha(self) -> LoHa | None:
        """(up @ down) * (1 @ 1): the second half is all ones. None with a Tucker core, whose sums round."""
        from .loha import LoHa

        if self.mid is not None:
            return None
        up, down = self.up.flatten(1), self.down.flatten(1)
        ones_up, ones_down = torch.zeros_like(up), torch.zeros_like(down)
        ones_up[:, 0] = 1
        ones_down[0] = 1
        return LoHa(up, down, ones_up, ones_down, alpha=self.alpha)
