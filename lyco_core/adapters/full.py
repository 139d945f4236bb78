"""A difference saved as it is: of a weight, a norm's weight, or a bias (LyCORIS "full" and "norm", ComfyUI's diff)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import AdapterError
from .additive import Additive
from .base import band_size, working
from .factors import as_product
from .loha import to_loha
from .lora import LoRA, lora_rank, to_lora

__all__ = ["Full"]


@dataclasses.dataclass(frozen=True, eq=False)
class Full(Additive):
    """diff: of the weight's own shape, (n,) for a norm or a bias. No rule scales it, an alpha means nothing."""

    algorithm: ClassVar[str] = "full"
    title: ClassVar[str] = "difference"
    tensor_names: ClassVar[tuple[str, ...]] = ("diff",)

    diff: Tensor

    def check(self) -> None:
        if self.diff.dim() == 0 or self.diff.numel() == 0:
            raise AdapterError(f"a difference of shape {list(self.diff.shape)}, expected at least one number a row")

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.diff.shape)

    @property
    def rank(self) -> None:
        return None

    def _add_to_(self, flat: Tensor, factor: float) -> None:
        diff = self.diff.reshape(flat.shape)
        step = band_size(flat.shape[1], flat.device)
        for start in range(0, flat.shape[0], step):
            with working(flat[start : start + step]) as band:
                band.add_(diff[start : start + step].to(band), alpha=factor)

    def apply(self, x: Tensor) -> Tensor:
        return x @ self.diff.to(x).flatten(1).t()

    def rows(self, start: int, stop: int) -> Full:
        return dataclasses.replace(self, diff=self.diff[start:stop])


@to_lora.register(Full)
def _(adapter: Full) -> LoRA | None:
    """The difference times the identity, of full rank; None for a norm or a bias."""
    if adapter.diff.dim() < 2:
        return None
    up, down = as_product(adapter.diff.to(torch.float32).flatten(1))
    return LoRA(up, down.reshape(-1, *adapter.shape[1:]))


@lora_rank.register(Full)
def _(adapter: Full) -> int:
    return min(adapter.flat_shape)


@to_loha.register(Full)
def _(adapter: Full) -> None:
    return None
