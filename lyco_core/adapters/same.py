"""Whether two adapters are the same change."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ..devices import norm
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
from .split_oft import SplitOFT
from .swapped import Swapped

__all__ = ["agreed", "alike_options", "changes_nothing", "is_outline", "same_change"]

_SAME = 1e-5
"""The relative error up to which two changes are the same: what float32 sums may differ by for another order of
their products, or for more zeros among them."""


def agreed(first: Adapter, second: Adapter) -> Adapter | None:
    """The one of two adapters of one module that counts; None if they contradict each other.

    Either, where both are the same change; the other, where one changes nothing. Outlines have no
    numbers to compare, so the first stands for both until these are read.
    """
    if is_outline(first) or is_outline(second) or changes_nothing(second):
        return first
    if changes_nothing(first):
        return second
    return first if same_change(first, second) else None


def is_outline(adapter: Adapter) -> bool:
    """Whether an adapter has shapes and no numbers: tensors on the meta device."""
    return any(tensor.is_meta for tensor in adapter.tensors.values())


@ByType
def changes_nothing(adapter: Adapter) -> bool:
    """Whether its factors say that it is not trained yet."""
    ...


@changes_nothing.register(LoRA, LoHa, LoKr, Full)
def _(adapter: Adapter) -> bool:
    """ΔW is a product, so it is zero if one factor is."""
    return any(not bool(_wide(t).any()) for t in adapter.tensors.values())


@changes_nothing.register(DoRA)
def _(adapter: DoRA) -> bool:
    """Its magnitudes are the weight's until it is trained."""
    return changes_nothing(adapter.inner)


@changes_nothing.register(BoRA)
def _(adapter: BoRA) -> bool:
    """As a DoRA's."""
    return changes_nothing(adapter.inner)


@changes_nothing.register(OFTv2)
def _(adapter: OFTv2) -> bool:
    """Its rotation is none until it is trained; a LoKr within it may change the weight all the same."""
    return not bool(_wide(adapter.vectors).any()) and (adapter.inner is None or changes_nothing(adapter.inner))


@changes_nothing.register(GLoRA, IA3, OFT, SplitOFT, BOFT)
def _(adapter: Adapter) -> bool:
    """Their factors do not show it."""
    return False


@changes_nothing.register(Swapped)
def _(adapter: Swapped) -> bool:
    return changes_nothing(adapter.inner)


def same_change(first: Adapter, second: Adapter) -> bool:
    """Whether both change a weight alike, up to the rounding of float32."""
    if isinstance(first, DoRA) and isinstance(second, DoRA):
        alike = _options(first) == _options(second) and _equal(first.magnitude.flatten(), second.magnitude.flatten())
        return alike and same_change(first.inner, second.inner)
    if isinstance(first, Additive) and isinstance(second, Additive):
        if first.flat_shape != second.flat_shape:
            return False
        delta = first.delta_weight()
        whole = norm(delta)
        return norm(second.add_to_(delta, -1.0)) <= _SAME * whole
    ours, theirs = first.tensors, second.tensors
    alike = first.algorithm == second.algorithm and first.scale == second.scale and ours.keys() == theirs.keys()
    alike = alike and _options(first) == _options(second)
    return alike and all(_equal(ours[name], theirs[name]) for name in ours)


def _options(adapter: Adapter) -> dict[str, object]:
    """What an adapter has beside its tensors and its alpha."""
    fields = ((f.name, getattr(adapter, f.name)) for f in dataclasses.fields(adapter))
    return {name: value for name, value in fields if isinstance(value, int)}


def alike_options(first: Adapter, second: Adapter) -> bool:
    """Whether what two adapters have beside their tensors and their alphas is the same."""
    one, other = getattr(first, "inner", None), getattr(second, "inner", None)
    if isinstance(one, Adapter) and isinstance(other, Adapter):
        alike = type(one) is type(other) and one.scale == other.scale and alike_options(one, other)
    else:
        alike = one is other
    return alike and _options(first) == _options(second)


def _equal(first: Tensor, second: Tensor) -> bool:
    return torch.equal(_wide(first), _wide(second))


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.float32)
