"""The sum of changes of one weight as one adapter: exact."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..adapters import Additive, Full, LoHa, LoKr, LoRA, changes_nothing, lora_rank, to_lora
from ..adapters.factors import one_dtype, padded

__all__ = ["cancels", "summed", "total"]


def summed(parts: Sequence[Additive], *, dense: bool = True) -> Additive:
    """One adapter with the sum of the parts' ΔW.

    LoRAs stack by rank; LoKr of one division with a common factor stay LoKr, LoHa with a common half stay LoHa. All
    else becomes a LoRA, or a difference saved whole where that is smaller.

    Args:
        dense: whether a difference of a matrix is wanted; what has no LoRA becomes one all the same.
    """
    if len(parts) == 1:
        return parts[0]
    for kind in (_lokr, _loha, _lora):
        if (made := kind(parts)) is not None:
            return made
    whole = any(isinstance(part, Full) for part in parts)
    height, width = parts[0].flat_shape
    if not whole and (not dense or sum(map(lora_rank, parts)) * (height + width) < height * width):
        loras = [lora for part in parts if (lora := to_lora(part)) is not None]
        if len(loras) == len(parts) and (made := _lora(loras)) is not None:
            return made
    return Full(total(parts))


def total(parts: Sequence[Additive]) -> Tensor:
    """The sum of the parts' ΔW in float32, in the shape that tells most of the weight."""
    shape = max((part.shape for part in parts), key=len)
    delta = torch.zeros(shape)
    for part in parts:
        part.add_to_(delta)
    return delta


def cancels(adapter: Additive) -> bool:
    """Whether its ΔW is nothing but what rounding leaves."""
    if isinstance(adapter, LoRA) and adapter.mid is None:
        return _nothing(adapter.up, adapter.down)
    if changes_nothing(adapter):
        return True
    if isinstance(adapter, LoKr):
        pairs = [(adapter.w1_a, adapter.w1_b), (adapter.w2_a, adapter.w2_b)]
        return adapter.t2 is None and any(a is not None and b is not None and _nothing(a, b) for a, b in pairs)
    return False


def _nothing(a: Tensor, b: Tensor) -> bool:
    """Whether ‖a @ b‖ is nothing beside the norms of its columns times rows: by Gram matrices."""
    a, b = a.flatten(1), b.flatten(1)
    for dtype, least in ((torch.float32, 1e-3), (torch.float64, 1e-13)):
        shares = (a.to(dtype).t() @ a.to(dtype)) * (b.to(dtype) @ b.to(dtype).t())
        if float(shares.sum()) > least * float(shares.abs().sum()):
            return False
    return True


def _lora(parts: Sequence[Additive]) -> LoRA | None:
    """Ups side by side, downs above each other: the ranks add up. A Tucker core is folded into the down."""
    loras = [part for part in parts if isinstance(part, LoRA)]
    if len(loras) < len(parts):
        return None
    shape = max((lora.shape for lora in loras), key=len)
    pairs = [_flat(lora) for lora in loras]
    scale = loras[0].scale
    ups = [_multiplied(up, lora.scale / scale) for lora, (up, _) in zip(loras, pairs, strict=True)]
    down = torch.cat(one_dtype([down for _, down in pairs]))
    return LoRA(torch.cat(one_dtype(ups), 1), down.reshape(-1, *shape[1:]), alpha=scale * down.shape[0])


def _flat(lora: LoRA) -> tuple[Tensor, Tensor]:
    if lora.mid is None:
        return lora.up.flatten(1), lora.down.flatten(1)
    return lora.factors(torch.float32, lora.up.device)


def _lokr(parts: Sequence[Additive]) -> LoKr | None:
    """kron(w1, w2) + kron(w1, w2') = kron(w1, w2 + w2'), and so with a common w2."""
    lokrs = [part for part in parts if isinstance(part, LoKr)]
    first = parts[0]
    if len(lokrs) < len(parts) or not isinstance(first, LoKr):
        return None
    if any((a.shape1, a.shape2) != (first.shape1, first.shape2) for a in lokrs):
        return None
    if _share(lokrs, ("w1", "w1_a", "w1_b")):
        a, b = _added([(*_second(lokr), lokr.scale) for lokr in lokrs])
        if b is None:
            return _scaled_by(LoKr(w1=first.w1, w1_a=first.w1_a, w1_b=first.w1_b, w2=a.reshape(first.shape2)))
        b = b.reshape(-1, *first.shape2[1:])
        return LoKr(w1=first.w1, w1_a=first.w1_a, w1_b=first.w1_b, w2_a=a, w2_b=b, alpha=float(b.shape[0]))
    if _share(lokrs, ("w2", "w2_a", "w2_b", "t2")):
        a, b = _added([(*_first(lokr), lokr.scale) for lokr in lokrs])
        w1 = {"w1": a, "w1_a": None, "w1_b": None} if b is None else {"w1": None, "w1_a": a, "w1_b": b}
        return _scaled_by(dataclasses.replace(first, **w1, alpha=None))
    return None


def _scaled_by(lokr: LoKr) -> LoKr:
    """The LoKr with the alpha that means a scale of 1, for readers that want one of each."""
    return lokr if lokr.rank is None else dataclasses.replace(lokr, alpha=float(lokr.rank))


def _first(lokr: LoKr) -> tuple[Tensor, Tensor | None]:
    if lokr.w1 is not None:
        return lokr.w1, None
    assert lokr.w1_a is not None
    return lokr.w1_a, lokr.w1_b


def _second(lokr: LoKr) -> tuple[Tensor, Tensor | None]:
    if lokr.t2 is not None:
        return lokr.factor2(torch.float32, lokr.t2.device)
    if lokr.w2 is not None:
        return lokr.w2.flatten(1), None
    assert lokr.w2_a is not None and lokr.w2_b is not None
    return lokr.w2_a, lokr.w2_b.flatten(1)


def _added(factors: Sequence[tuple[Tensor, Tensor | None, float]]) -> tuple[Tensor, Tensor | None]:
    """The sum of factors times their scales: as a product of their ranks together where that is smaller, else whole."""
    height = factors[0][0].shape[0]
    width = next(a.shape[1] if b is None else b.shape[1] for a, b, _ in factors)
    products = [(a, b, scale) for a, b, scale in factors if b is not None]
    rank = sum(b.shape[0] for _, b, _ in products)
    if len(products) == len(factors) and rank * (height + width) < height * width:
        left = one_dtype([_multiplied(a, scale) for a, _, scale in products])
        return torch.cat(left, 1), torch.cat(one_dtype([b for _, b, _ in products]))
    whole = torch.zeros(height, width, dtype=torch.float64)
    for a, b, scale in factors:
        whole.add_(a.double() if b is None else a.double() @ b.double(), alpha=scale)
    return whole.float(), None


def _loha(parts: Sequence[Additive]) -> LoHa | None:
    """(p * q) + (p' * q) = (p + p') * q, for either half: of the ranks together."""
    lohas = [part for part in parts if isinstance(part, LoHa)]
    first = parts[0]
    if len(lohas) < len(parts) or not isinstance(first, LoHa) or any(a.t1 is not None for a in lohas):
        return None
    for kept, added in ((("w2_a", "w2_b"), ("w1_a", "w1_b")), (("w1_a", "w1_b"), ("w2_a", "w2_b"))):
        if not _share(lohas, kept):
            continue
        a = torch.cat(one_dtype([_multiplied(a.tensors[added[0]], a.scale) for a in lohas]), 1)
        b = torch.cat(one_dtype([a.tensors[added[1]].flatten(1) for a in lohas]))
        same = padded(first.tensors[kept[0]], first.tensors[kept[1]].flatten(1), b.shape[0])
        halves = (a, b.reshape(-1, *first.shape[1:]), same[0], same[1].reshape(-1, *first.shape[1:]))
        one, other = (halves[:2], halves[2:]) if added[0] == "w1_a" else (halves[2:], halves[:2])
        return LoHa(*one, *other, alpha=float(b.shape[0]))
    return None


def _share(adapters: Sequence[LoKr | LoHa], names: tuple[str, ...]) -> bool:
    """Whether all have the same tensors of these names."""
    ours = {name: t for name, t in adapters[0].tensors.items() if name in names}
    for other in adapters[1:]:
        theirs = {name: t for name, t in other.tensors.items() if name in names}
        if theirs.keys() != ours.keys() or not all(_equal(ours[name], theirs[name]) for name in ours):
            return False
    return True


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one.float(), other.float())


def _multiplied(tensor: Tensor, factor: float) -> Tensor:
    """`tensor * factor`, in its own dtype if that holds all of it, else in float32."""
    if factor == 1:
        return tensor
    wide = tensor.float() * factor
    narrow = wide.to(tensor.dtype)
    return narrow if math.isfinite(factor) and torch.equal(narrow.float(), wide) else wide
