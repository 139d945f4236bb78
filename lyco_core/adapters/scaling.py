"""An adapter under another scale than its alpha's: what PEFT's configuration says, or a person."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from .base import Adapter
from .by_type import ByType
from .dora import DoRA
from .full import Full
from .glora import GLoRA
from .ia3 import IA3
from .loha import LoHa
from .lokr import LoKr
from .lora import LoRA
from .oft import BOFT, OFT

__all__ = ["rescaled", "scaled", "with_alpha"]


@ByType
def rescaled(adapter: Adapter, scale: float) -> Adapter:
    """The same factors under `scale` instead of alpha / rank; what knows no scale stays as it is."""
    ...


@rescaled.register(LoRA, LoHa, GLoRA)
def _(adapter: LoRA | LoHa | GLoRA, scale: float) -> Adapter:
    return dataclasses.replace(adapter, alpha=scale * adapter.rank)


@rescaled.register(LoKr)
def _(adapter: LoKr, scale: float) -> LoKr:
    """One whose factors are both full knows no alpha: it goes into w1, in float32."""
    if adapter.rank is not None:
        return dataclasses.replace(adapter, alpha=scale * adapter.rank)
    assert adapter.w1 is not None
    return dataclasses.replace(adapter, w1=scaled(adapter.w1, scale))


@rescaled.register(DoRA)
def _(adapter: DoRA, scale: float) -> DoRA:
    return adapter.on(rescaled(adapter.inner, scale))


@rescaled.register(Full, IA3, OFT, BOFT)
def _(adapter: Adapter, scale: float) -> Adapter:
    return adapter


def with_alpha(adapter: Adapter, alpha: float | None) -> Adapter:
    """The same factors under another alpha, or under none."""
    if isinstance(adapter, DoRA):
        return adapter.on(with_alpha(adapter.inner, alpha))
    return dataclasses.replace(adapter, alpha=alpha)


def scaled(tensor: Tensor, factor: float) -> Tensor:
    """The product in float32; an outline stays one.

    To multiply on the meta device torch loads its compiler first: seconds, and a hundred megabytes.
    """
    wide = tensor.to(torch.float32)
    return wide if wide.is_meta else wide * factor
