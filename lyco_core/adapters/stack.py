"""Several adapters as one: each on its own rows of a weight that a layout fuses. Exact."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from .additive import Additive
from .base import Adapter
from .dora import DoRA
from .factors import one_dtype, padded
from .loha import LoHa, to_loha
from .lokr import LoKr
from .lora import LoRA, lora_rank, to_lora

__all__ = ["stacked"]

AtRow = tuple[int, Adapter]
"""(first row in the fused weight, the adapter of the rows from there)."""


def stacked(parts: Sequence[AtRow], height: int) -> Adapter | None:
    """One adapter with the parts' ΔW on their rows and zero on the others, of `height` rows.

    The parts may come in any order, as a file's do: often by name, so k before q.
    Parts of one kind stay that kind; a factor that all parts share is kept once, so that what was
    cut from one adapter becomes that adapter again. LoKr parts that share no factor, and parts of
    several kinds, become the smaller of the LoHa and the LoRA that they all have; None if they
    have none.
    """
    parts = sorted(parts, key=lambda part: part[0])
    additive = [(start, adapter) for start, adapter in parts if isinstance(adapter, Additive)]
    return _stacked_dora(parts, height) if len(additive) < len(parts) else _stacked_additive(additive, height)


def _stacked_additive(parts: Sequence[tuple[int, Additive]], height: int) -> Additive | None:
    if (lokr := _stacked_lokr(parts, height)) is not None:
        return lokr
    if all(isinstance(adapter, LoRA) for _, adapter in parts):
        return _stacked_lora(parts, height)
    if all(isinstance(adapter, LoHa) for _, adapter in parts):
        return _stacked_loha(parts, height)
    # To build both would cost more than to write the smaller.
    loha = _stacked_loha(parts, height)
    lora_bytes = 4 * sum(lora_rank(adapter) for _, adapter in parts) * (height + parts[0][1].flat_shape[1])
    if loha is not None and sum(t.nbytes for t in loha.tensors.values()) <= lora_bytes:
        return loha
    return _stacked_lora(parts, height) or loha


def _stacked_dora(parts: Sequence[AtRow], height: int) -> DoRA | None:
    """Parts with a magnitude for each row, from the first row to the last."""
    doras = [adapter for _, adapter in parts if isinstance(adapter, DoRA) and adapter.axis == 0]
    if len(doras) < len(parts) or sum(dora.shape[0] for dora in doras) != height:
        return None
    if len({dora.by_base for dora in doras}) > 1:
        return None
    inner = _stacked_additive([(start, dora.inner) for (start, _), dora in zip(parts, doras, strict=True)], height)
    if inner is None:
        return None
    magnitude = torch.cat(one_dtype([dora.magnitude for dora in doras]))
    return DoRA.of(inner, magnitude, on_output=True, by_base=doras[0].by_base)


def _stacked_lokr(parts: Sequence[AtRow], height: int) -> LoKr | None:
    """Parts with one w2 and one scale that follow each other from the first row to the last."""
    lokrs = [adapter for _, adapter in parts if isinstance(adapter, LoKr)]
    first = lokrs[0] if lokrs else None
    ends = [start + adapter.shape[0] for start, adapter in parts]
    if first is None or len(lokrs) < len(parts) or [0, *ends] != [*(start for start, _ in parts), height]:
        return None
    if any(a.w1 is None or a.scale != first.scale for a in lokrs):
        return None
    shared = {name: tensor for name, tensor in first.tensors.items() if name != "w1"}
    for lokr in lokrs[1:]:
        others = {name: tensor for name, tensor in lokr.tensors.items() if name != "w1"}
        if others.keys() != shared.keys() or not all(_same([t, others[n]]) for n, t in shared.items()):
            return None
    return dataclasses.replace(first, w1=torch.cat([a.w1 for a in lokrs if a.w1 is not None]))


def _stacked_lora(parts: Sequence[AtRow], height: int) -> LoRA | None:
    """Ups side by side, each in its rows; downs above each other: the ranks add up."""
    loras = [(start, a if isinstance(a, LoRA) else to_lora(a)) for start, a in parts]
    known = [(start, a) for start, a in loras if a is not None and a.mid is None]
    if len(known) != len(parts):
        return None
    scale, ups = _one_scale([(a.scale, a.up) for _, a in known])
    up, down = _half([start for start, _ in known], ups, [a.down for _, a in known], height)
    return LoRA(up, down, alpha=scale * down.shape[0])


def _stacked_loha(parts: Sequence[AtRow], height: int) -> LoHa | None:
    """Each half of the product stacked as `_stacked_lora` stacks its factors."""
    lohas = [(start, to_loha(a)) for start, a in parts]
    known = [(start, a) for start, a in lohas if a is not None and a.t1 is None]
    if len(known) != len(parts):
        return None
    scale, w2_a = _one_scale([(a.scale, a.w2_a) for _, a in known])
    starts = [start for start, _ in known]
    first = _half(starts, *_without_zeros([a.w1_a for _, a in known], [a.w1_b for _, a in known]), height)
    second = _half(starts, *_without_zeros(w2_a, [a.w2_b for _, a in known]), height)
    rank = max(first[1].shape[0], second[1].shape[0])
    return LoHa(*padded(*first, rank), *padded(*second, rank), alpha=scale * rank)


def _half(starts: list[int], a: list[Tensor], b: list[Tensor], height: int) -> tuple[Tensor, Tensor]:
    """Two factors whose product has each a @ b in its rows; one b for all is kept once."""
    if not _same(b):
        return _block_columns(list(zip(starts, a, strict=True)), height), torch.cat(one_dtype(b))
    parts = one_dtype(a)
    up = parts[0].new_zeros(height, *parts[0].shape[1:])
    for start, part in zip(starts, parts, strict=True):
        up[start : start + part.shape[0]] = part
    return up, b[0]


def _without_zeros(a: list[Tensor], b: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Each a @ b without the ranks whose row of b is zero: what a LoHa was padded with. One stays."""
    keep = [t.any(dim=1) for t in b]
    for mask in keep:
        mask[0] = True
    pairs = list(zip(a, b, keep, strict=True))
    return [x[:, mask] for x, _, mask in pairs], [y[mask] for _, y, mask in pairs]


def _same(tensors: list[Tensor]) -> bool:
    first = tensors[0]
    return all(t.dtype == first.dtype and t.shape == first.shape and torch.equal(t, first) for t in tensors[1:])


def _block_columns(parts: Sequence[tuple[int, Tensor]], height: int) -> Tensor:
    """(height, sum of ranks): each part in its own rows and its own columns."""
    tensors = one_dtype([part for _, part in parts])
    up = tensors[0].new_zeros(height, sum(t.shape[1] for t in tensors))
    column = 0
    for (start, _), part in zip(parts, tensors, strict=True):
        up[start : start + part.shape[0], column : column + part.shape[1]] = part
        column += part.shape[1]
    return up


def _one_scale(parts: list[tuple[float, Tensor]]) -> tuple[float, list[Tensor]]:
    """The first part's scale, and the parts' tensors with what differs from it folded in (float32)."""
    scale = parts[0][0]
    if all(other == scale for other, _ in parts):
        return scale, [tensor for _, tensor in parts]
    return scale, [tensor.to(torch.float32) * (other / scale) for other, tensor in parts]
