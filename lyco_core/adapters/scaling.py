"""An adapter under another scale than its alpha's: what PEFT's configuration says, or a person."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from .additive import Additive
from .base import Adapter
from .bora import BoRA
from .by_type import ByType
from .dora import DoRA
from .full import Full
from .glora import GLoRA
from .ia3 import IA3
from .loha import LoHa
from .lokr import LoKr
from .lora import LoRA
from .oft import BOFT, OFT
from .oftv2 import OFTv2
from .on_base import OnBase
from .split_oft import SplitOFT
from .swapped import Swapped

__all__ = ["multiplied", "times", "with_alpha", "with_scale"]


@ByType
def with_scale(adapter: Adapter, scale: float) -> Adapter:
    """A copy whose product is multiplied by `scale` instead of alpha / rank; what has no scale stays as it is."""
    ...


@with_scale.register(LoRA, LoHa, GLoRA)
def _(adapter: LoRA | LoHa | GLoRA, scale: float) -> Adapter:
    return dataclasses.replace(adapter, alpha=scale * adapter.rank)


@with_scale.register(LoKr)
def _(adapter: LoKr, scale: float) -> LoKr:
    """Where w1 and w2 are both full, no alpha counts: the scale is multiplied into w1, in float32."""
    if adapter.rank is not None:
        return dataclasses.replace(adapter, alpha=scale * adapter.rank)
    assert adapter.w1 is not None
    return dataclasses.replace(adapter, w1=multiplied(adapter.w1, scale))


@with_scale.register(DoRA)
def _(adapter: DoRA, scale: float) -> DoRA:
    return adapter.on(with_scale(adapter.inner, scale))


@with_scale.register(Swapped)
def _(adapter: Swapped, scale: float) -> Swapped:
    return dataclasses.replace(adapter, inner=with_scale(adapter.inner, scale))


@with_scale.register(BoRA)
def _(adapter: BoRA, scale: float) -> BoRA:
    inner = with_scale(adapter.inner, scale)
    assert isinstance(inner, Additive)
    return adapter.on(inner)


@with_scale.register(OFTv2)
def _(adapter: OFTv2, scale: float) -> OFTv2:
    """A rotation has no scale; a LoKr within it has."""
    if adapter.inner is None:
        return adapter
    inner = with_scale(adapter.inner, scale)
    assert isinstance(inner, DoRA)
    return dataclasses.replace(adapter, inner=inner)


@with_scale.register(Full, IA3, OFT, SplitOFT, BOFT)
def _(adapter: Adapter, scale: float) -> Adapter:
    return adapter


def times(adapter: Adapter, factor: float) -> Adapter:
    """A copy whose change is `factor` times as large, in a scale where it has one. Raises `AdapterError` on a base."""
    if factor == 1:
        return adapter
    if isinstance(adapter, OnBase):
        adapter.refuse("other strength")
    if isinstance(adapter, Full):
        return dataclasses.replace(adapter, diff=multiplied(adapter.diff, factor))
    return with_scale(adapter, adapter.scale * factor)


def with_alpha(adapter: Adapter, alpha: float | None) -> Adapter:
    """A copy with another alpha, or with none."""
    if isinstance(adapter, DoRA | BoRA):
        inner = with_alpha(adapter.inner, alpha)
        assert isinstance(inner, Additive)
        return adapter.on(inner)
    return dataclasses.replace(adapter, alpha=alpha)


def multiplied(tensor: Tensor, factor: float) -> Tensor:
    """`tensor * factor` in float32; an outline (on the meta device) stays one.

    To multiply on the meta device torch loads its compiler first: seconds, and a hundred megabytes.
    """
    wide = tensor.to(torch.float32)
    return wide if wide.is_meta else wide * factor
