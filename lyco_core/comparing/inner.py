"""Inner products of changes, and how much of their spaces two share."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor

from ..adapters import Additive, LoKr, LoRA, lora_rank, to_lora
from ..errors import AdapterError

__all__ = ["inner", "overlap", "size"]

BAND = 2**21
"""Numbers of a change that are built at a time, where it has to be built."""

ROWS = 4096
"""Rows of a LoRA's factors that are multiplied at a time."""

FEW = 64
"""Up to this rank a product with the exact LoRA takes less than building both changes."""

MOST_SHARED = 256
"""Up to this rank the spaces of a change are compared: their bases are orthogonalized."""


def size(adapter: Additive, name: str) -> float:
    """‖ΔW‖ in the Frobenius norm. Raises `AdapterError`, which begins with the module's name, beyond float32."""
    square = inner(adapter, adapter)
    if not math.isfinite(square):
        raise AdapterError("its change is too large to be measured; training diverged, use an earlier save").within(
            name
        )
    return math.sqrt(max(0.0, square))


def inner(a: Additive, b: Additive) -> float:
    """⟨ΔA, ΔB⟩, the sum of the products of their numbers; both of one shape, but for kernels that are flattened.

    Of two LoRA it is ⟨A.T @ A', B @ B'.T⟩ of their factors; of a LoRA b and another, that of up and ΔA @ down.T; of two
    LoKr that are split alike, by ⟨W1 ⊗ W2, W1' ⊗ W2'⟩ = ⟨W1, W1'⟩ ⟨W2, W2'⟩: none of which builds a change. All others
    are built by bands of rows.
    """
    if isinstance(a, LoRA) and isinstance(b, LoRA):
        (up, down), (others_up, others_down) = _pair(a), _pair(b)
        return a.scale * b.scale * _dot(_gram(up, others_up), _gram(down.t(), others_down.t()))
    if isinstance(a, LoKr) and isinstance(b, LoKr) and (a.shape1, a.shape2) == (b.shape1, b.shape2):
        return a.scale * b.scale * _product(_first(a), _first(b)) * _product(_second(a), _second(b))
    few, other = sorted((a, b), key=lambda one: one.flat_shape[0] if _is_bias(one) else lora_rank(one))
    if not _is_bias(few) and (isinstance(few, LoRA) or lora_rank(few) <= FEW):
        lora = to_lora(few)
        if lora is not None:
            up, down = lora.factors(torch.float32, lora.up.device)
            return lora.scale * _dot(up, other.apply(down).t())
    return _by_bands(a, b)


def _pair(lora: LoRA) -> tuple[Tensor, Tensor]:
    """Up and down, as they are stored; of a Tucker core, which is folded into one of them, in float32."""
    return lora.factors(None if lora.mid is None else torch.float32, lora.up.device)


def _gram(one: Tensor, other: Tensor) -> Tensor:
    """one.T @ other in float32, summed in float64 over bands of rows: wide copies of whole factors take longer to be
    made than to be multiplied.
    """
    total = torch.zeros(one.shape[1], other.shape[1], dtype=torch.float64)
    for start in range(0, one.shape[0], ROWS):
        band = slice(start, start + ROWS)
        total += one[band].float().t() @ other[band].float()
    return total


def _is_bias(adapter: Additive) -> bool:
    return len(adapter.shape) < 2


Factor = tuple[Tensor, Tensor | None]
"""A matrix, or the two whose product it is."""


def _first(lokr: LoKr) -> Factor:
    if lokr.w1 is not None:
        return lokr.w1.float(), None
    assert lokr.w1_a is not None and lokr.w1_b is not None
    return lokr.w1_a.float(), lokr.w1_b.float()


def _second(lokr: LoKr) -> Factor:
    return lokr.factor2(torch.float32, next(iter(lokr.tensors.values())).device)


def _product(one: Factor, other: Factor) -> float:
    """The inner product of two matrices; of two products, by what their rank leaves."""
    (a, b), (c, d) = one, other
    if b is not None and d is not None:
        return _dot(a.t() @ c, b @ d.t())
    return _dot(a if b is None else a @ b, c if d is None else c @ d)


def _by_bands(a: Additive, b: Additive) -> float:
    rows, columns = a.flat_shape
    step = max(1, BAND // columns)
    total = 0.0
    for start in range(0, rows, step):
        one = _band(a, start, min(rows, start + step))
        total += _dot(one, one if a is b else _band(b, start, min(rows, start + step)))
    return total


def _band(adapter: Additive, start: int, stop: int) -> Tensor:
    return adapter.add_band_(torch.zeros(stop - start, adapter.flat_shape[1]), start)


def _dot(one: Tensor, other: Tensor) -> float:
    """Summed in float64: of many small products nothing is lost."""
    return float((one.double() * other.double()).sum())


def overlap(a: Additive, b: Additive) -> tuple[float, float] | None:
    """How much of the smaller of two spaces lies in the other, 0 to 1: of the inputs that the changes read, and of the
    outputs that they write; φ of the LoRA paper (arXiv:2106.09685, section 7.2), all of both. None where a rank is too
    large for it to say anything, or to compute.
    """
    bases: list[tuple[Tensor, Tensor]] = []
    for one in (a, b):
        if _is_bias(one) or lora_rank(one) > min(MOST_SHARED, *(n // 2 for n in one.flat_shape)):
            return None
        if (lora := to_lora(one)) is None:
            return None
        up, down = lora.factors(torch.float32, lora.up.device)
        bases.append((_basis(down.t()), _basis(up)))
    (reads, writes), (others_reads, others_writes) = bases
    return _shared(reads, others_reads), _shared(writes, others_writes)


def _basis(columns: Tensor) -> Tensor:
    """An orthonormal basis of what the columns span."""
    q, r = _qr(columns.double())
    lengths = r.diagonal().abs()
    return q[:, lengths > 1e-6 * lengths.max()]


def _qr(matrix: Tensor) -> tuple[Tensor, Tensor]:
    return cast("tuple[Tensor, Tensor]", torch.linalg.qr(matrix))


def _shared(one: Tensor, other: Tensor) -> float:
    smaller = min(one.shape[1], other.shape[1])
    return float((one.t() @ other).square().sum()) / smaller if smaller else 0.0
