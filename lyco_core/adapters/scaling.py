"""An adapter under another scale than its alpha's: what PEFT's configuration says, or a person."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from .base import Adapter
from .dora import DoRA
from .lokr import LoKr

__all__ = ["rescaled", "scaled", "with_alpha"]


def rescaled(adapter: Adapter, scale: float) -> Adapter:
    """The same factors under `scale`.

    A LoKr whose factors are both full knows no scale: it goes into w1, in float32. What no low rank
    makes small stays as it is.
    """
    if isinstance(adapter, DoRA):
        inner = rescaled(adapter.inner, scale)
        return dataclasses.replace(adapter, inner=inner, alpha=inner.alpha)
    if adapter.rank is not None:
        return dataclasses.replace(adapter, alpha=scale * adapter.rank)
    if isinstance(adapter, LoKr) and adapter.w1 is not None:
        return dataclasses.replace(adapter, w1=scaled(adapter.w1, scale))
    return adapter


def with_alpha(adapter: Adapter, alpha: float | None) -> Adapter:
    """The same factors under another alpha, or under none."""
    if isinstance(adapter, DoRA):
        return dataclasses.replace(adapter, inner=with_alpha(adapter.inner, alpha), alpha=alpha)
    return dataclasses.replace(adapter, alpha=alpha)


def scaled(tensor: Tensor, factor: float) -> Tensor:
    """The product in float32; an outline stays one.

    To multiply on the meta device torch loads its compiler first: seconds, and a hundred megabytes.
    """
    wide = tensor.to(torch.float32)
    return wide if wide.is_meta else wide * factor
