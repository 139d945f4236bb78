"""Inner products of changes, and how much of their spaces two share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from ..adapters import Additive, LoHa, LoKr, LoRA, lora_rank, to_lora
from ..errors import AdapterError
from ..scratch import scratch
from . import hadamard

__all__ = ["inner", "overlap", "size", "squares_and_inner"]

BAND = 2**19
"""Numbers of a change that are built at a time, where it has to be built: they stay in a core's cache."""

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
    """⟨ΔA, ΔB⟩, the sum of the products of their numbers; both of one shape, but for kernels that are flattened."""
    found = _from_factors(a, b)
    return _by_bands([a, b] if a is not b else [a])[-1] if found is None else found


def squares_and_inner(a: Additive, b: Additive) -> tuple[float, float, float]:
    """‖ΔA‖², ‖ΔB‖² and ⟨ΔA, ΔB⟩: where changes have to be built, each is built once."""
    product = _from_factors(a, b)
    if product is not None:
        return inner(a, a), inner(b, b), product
    first, second, product = _by_bands([a, b])
    return first, second, product


def _from_factors(a: Additive, b: Additive) -> float | None:
    """⟨ΔA, ΔB⟩ without building a change; None where there is no such way.

    Of two LoRA it is ⟨A.T @ A', B @ B'.T⟩ of their factors; of a LoRA b and another, that of up and ΔA @ down.T; of two
    LoKr that are split alike, by ⟨W1 ⊗ W2, W1' ⊗ W2'⟩ = ⟨W1, W1'⟩ ⟨W2, W2'⟩. A LoHa's with itself has ways of its own.
    """
    if a is b and isinstance(a, LoHa):
        return hadamard.square(a)
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
    return None


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


def _by_bands(changes: Sequence[Additive]) -> list[float]:
    """The square of each of one or two changes, and then their product, by bands of rows."""
    rows, columns = changes[0].flat_shape
    step = max(1, BAND // columns)
    wide = [one.to(dtype=torch.float32) for one in changes]  # once, and not for each band
    wanted = [(0, 0), (1, 1), (0, 1)][: 2 * len(wide) - 1]
    totals = [0.0 for _ in wanted]
    for start in range(0, rows, step):
        height = min(step, rows - start)
        bands = scratch("changes", (len(wide), height, columns)).zero_()
        for adapter, band in zip(wide, bands, strict=True):
            adapter.add_band_(band, start)
        for index, (one, other) in enumerate(wanted):
            totals[index] += float((bands[one] * bands[other]).sum(dim=1).double().sum())
    return totals


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
