"""LoKr, the low-rank Kronecker product (KronA, arXiv:2212.10650; LyCORIS, arXiv:2309.14859):
ΔW = kron(w1, w2) * scale, each of w1, w2 a full matrix or a low-rank product.

With out = out_l·out_k and in = in_m·in_n, element (l·out_k + k, m·in_n + n) of ΔW is
w1[l, m] * w2[k, n]. Everything below reads the weight as (out_l, out_k, in_m, in_n).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import AdapterError
from ..fused import Half
from ..scratch import scratch
from .additive import Additive
from .base import band_size, compute_dtype, working
from .factors import as_product, low_rank, padded, product_of, require_matrix, require_product, require_tensors
from .loha import LoHa, to_loha
from .lora import LoRA, lora_rank, to_lora

__all__ = ["LoKr"]


@dataclasses.dataclass(frozen=True, eq=False)
class LoKr(Additive):
    """w1: (out_l, in_m), or w1_a (out_l, r) with w1_b (r, in_m).
    w2: (out_k, in_n, *kernel), or w2_a (out_k, r) with w2_b (r, in_n·kernel).

    Tucker: t2 (r, r, *kernel), then w2_a is (r, out_k) and w2_b (r, in_n). When w1 and w2 are both
    full, the scale is 1 whatever alpha says (Musubi Tuner, LyCORIS, ai-toolkit train so).
    """

    algorithm: ClassVar[str] = "lokr"
    title: ClassVar[str] = "LoKr"
    tensor_names: ClassVar[tuple[str, ...]] = ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")

    w1: Tensor | None = None
    w1_a: Tensor | None = None
    w1_b: Tensor | None = None
    w2: Tensor | None = None
    w2_a: Tensor | None = None
    w2_b: Tensor | None = None
    t2: Tensor | None = None

    def check(self) -> None:
        self._check_factor("w1", None)
        self._check_factor("w2", self.t2)
        for name in ("w1", "w1_a", "w1_b"):
            tensor: Tensor | None = getattr(self, name)
            if tensor is not None and tensor.dim() != 2:
                raise AdapterError(f"{name} has shape {list(tensor.shape)}, expected two dimensions")

    def _check_factor(self, name: str, mid: Tensor | None) -> None:
        full, a, b = (getattr(self, name + end) for end in ("", "_a", "_b"))
        if full is None:
            require_tensors({f"{name}_a": a, f"{name}_b": b}, "LoKr", f"{name}, or {name}_a and {name}_b")
            require_product(f"{name}_a", a, f"{name}_b", b, "t2", mid)
        elif a is not None or b is not None or mid is not None:
            raise AdapterError(f"{name} is there both whole and as a product; only one can be meant")
        else:
            require_matrix(name, full)

    @property
    def shape1(self) -> tuple[int, int]:
        """The shape of w1: (out_l, in_m)."""
        if self.w1 is not None:
            return self.w1.shape[0], self.w1.shape[1]
        assert self.w1_a is not None and self.w1_b is not None
        return self.w1_a.shape[0], self.w1_b.shape[1]

    @property
    def shape2(self) -> tuple[int, ...]:
        """The shape of w2: (out_k, in_n) or (out_k, in_n, *kernel)."""
        if self.w2 is not None:
            return tuple(self.w2.shape)
        assert self.w2_a is not None and self.w2_b is not None
        if self.t2 is not None:
            return self.w2_a.shape[1], self.w2_b.shape[1], *self.t2.shape[2:]
        return self.w2_a.shape[0], *self.w2_b.shape[1:]

    @functools.cached_property
    def shape(self) -> tuple[int, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (out_l, in_m), (out_k, in_n, *kernel) = self.shape1, self.shape2
        return (out_l * out_k, in_m * in_n, *kernel)

    @property
    def rank(self) -> int | None:
        low = self.w2_b if self.w2_b is not None else self.w1_b
        return None if low is None else low.shape[0]

    def factor1(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        """w1 as a matrix: (out_l, in_m)."""
        if self.w1 is not None:
            return self.w1.to(device, dtype)
        assert self.w1_a is not None and self.w1_b is not None
        return self.w1_a.to(device, dtype) @ self.w1_b.to(device, dtype)

    def factor2(self, dtype: torch.dtype | None, device: torch.device) -> tuple[Tensor, Tensor | None]:
        """w2 flat: (out_k, in_n·kernel) and None, or (out_k, r) and (r, in_n·kernel)."""
        if self.w2 is not None:
            return self.w2.to(device, dtype).flatten(1), None
        assert self.w2_a is not None and self.w2_b is not None
        return low_rank(self.w2_a, self.w2_b, self.t2, dtype, device)

    def halves(self, device: torch.device) -> Sequence[Half]:
        """w1, each element stretched over a block, and w2, repeated over all blocks."""
        out_k, *rest = self.shape2
        if self.w1 is not None:
            u, v = self.w1.to(device), None
        else:
            assert self.w1_a is not None and self.w1_b is not None
            u, v = self.w1_a.to(device), self.w1_b.to(device)
        return Half(u, v, out_k, math.prod(rest)), Half(*self.factor2(None, device))

    def _add_to_(self, flat: Tensor, factor: float) -> None:
        """One pass over the weight: in block row l, rows k of the weight grow by w2[k], repeated
        in_m times along the row, times w1[l], each element repeated in_n times."""
        dtype = compute_dtype(flat.dtype)
        w1 = self.factor1(dtype, flat.device)
        a, b = self.factor2(dtype, flat.device)
        (out_l, in_m), out_k, columns = w1.shape, a.shape[0], flat.shape[1]
        blocks = flat.view(out_l, out_k, columns)
        lines = band_size(columns, flat.device)
        step_k = min(out_k, lines)
        step_l = min(out_l, lines if flat.dtype == dtype else max(1, 4 * lines // step_k))
        for k in range(0, out_k, step_k):
            part = a[k : k + step_k]
            product = part if b is None else part @ b
            repeated = scratch("repeated", (part.shape[0], columns), dtype, flat.device)
            repeated.view(-1, in_m, columns // in_m).copy_(product.unsqueeze(1))
            for row in range(0, out_l, step_l):
                stretched = w1[row : row + step_l].repeat_interleave(columns // in_m, dim=1)
                with working(blocks[row : row + step_l, k : k + step_k]) as target:
                    target.addcmul_(stretched.unsqueeze(1), repeated, value=factor)

    def apply(self, x: Tensor) -> Tensor:
        """`x @ ΔW.T` as two small products; with a low-rank w2, w1 acts between its halves, in the rank space."""
        w1 = self.factor1(x.dtype, x.device) * self.scale
        a, b = self.factor2(x.dtype, x.device)
        hidden = x.reshape(*x.shape[:-1], w1.shape[1], -1)
        hidden = w1 @ (hidden @ (a if b is None else b).t())
        if b is not None:
            hidden = hidden @ a.t()
        return hidden.flatten(-2)

    def _apply_to_(self, x: Tensor, output: Tensor, factor: float) -> None:
        w1 = self.factor1(x.dtype, x.device)
        a, b = self.factor2(x.dtype, x.device)
        hidden = x.view(x.shape[0], w1.shape[1], -1) @ (a if b is None else b).t()
        blocks = output.view(x.shape[0], w1.shape[0], -1)
        if b is not None and output.is_contiguous():
            output.view(-1, a.shape[0]).addmm_((w1 @ hidden).flatten(0, 1), a.t(), alpha=factor)
        elif b is not None:
            blocks.add_((w1 @ hidden) @ a.t(), alpha=factor)
        else:
            blocks.baddbmm_(w1.expand(x.shape[0], -1, -1), hidden, alpha=factor)

    def rows(self, start: int, stop: int) -> LoKr | None:
        """The LoKr of whole blocks of out_k rows, or of rows within one block; None for rows across their borders."""
        out_k = self.shape2[0]
        first, last = start // out_k, math.ceil(stop / out_k)
        if start % out_k == 0 and stop % out_k == 0:
            return self._slice_w1(first, last)
        if last - first == 1:
            return self._slice_w1(first, last)._slice_w2(start - first * out_k, stop - first * out_k)
        return None

    def edges(self, start: int, stop: int) -> list[int]:
        out_k = self.shape2[0]
        first, last = math.ceil(start / out_k) * out_k, stop // out_k * out_k
        return [edge for edge in sorted({first, last}) if start < edge < stop]

    def _slice_w1(self, start: int, stop: int) -> LoKr:
        if self.w1 is not None:
            return dataclasses.replace(self, w1=self.w1[start:stop])
        assert self.w1_a is not None
        return dataclasses.replace(self, w1_a=self.w1_a[start:stop])

    def _slice_w2(self, start: int, stop: int) -> LoKr:
        if self.w2 is not None:
            return dataclasses.replace(self, w2=self.w2[start:stop])
        assert self.w2_a is not None
        sliced = self.w2_a[start:stop] if self.t2 is None else self.w2_a[:, start:stop]
        return dataclasses.replace(self, w2_a=sliced)


@to_lora.register(LoKr)
def _(adapter: LoKr) -> LoRA:
    """kron(w1, a @ b) = kron(w1, a) @ kron(I, b), of rank in_m·r, or kron(I, a) @ kron(w1, b),
    of rank out_l·r, whichever is smaller; with both low-rank, of rank r1·r2.

    A full w2 is I @ w2 or w2 @ I, again the smaller. Products of two bfloat16 numbers are
    exact in float32, so for bfloat16 factors nothing is rounded unless both w1 and w2 are
    low-rank products.
    """
    up, down = _lora_of(adapter)
    alpha = None if adapter.rank is None or adapter.alpha is None else adapter.scale * up.shape[1]
    return LoRA(up, down.reshape(-1, *adapter.shape[1:]), alpha=alpha)


@lora_rank.register(LoKr)
def _(adapter: LoKr) -> int:
    (out_l, in_m), (out_k, *rest) = adapter.shape1, adapter.shape2
    outer = min(out_l, in_m) if adapter.w1_b is None else min(out_l, in_m, adapter.w1_b.shape[0])
    return outer * (min(out_k, math.prod(rest)) if adapter.w2_b is None else adapter.w2_b.shape[0])


@to_loha.register(LoKr)
def _(adapter: LoKr) -> LoHa | None:
    """w1 with each element stretched over a block, times w2 repeated over all blocks.

    Stretching and repeating only copy numbers, so nothing is rounded, and the ranks are those
    of w1 and w2: far smaller than the LoRA's, which multiplies them. None with a Tucker core.
    """
    if adapter.t2 is not None:
        return None
    (out_l, in_m), (out_k, *rest) = adapter.shape1, adapter.shape2
    u, v = product_of(adapter.w1, adapter.w1_a, adapter.w1_b)
    a, b = product_of(adapter.w2, adapter.w2_a, adapter.w2_b)
    first = u.repeat_interleave(out_k, dim=0), v.repeat_interleave(math.prod(rest), dim=1)
    second = a.repeat(out_l, 1), b.repeat(1, in_m)
    rank = max(first[1].shape[0], second[1].shape[0])
    alpha = None if adapter.rank is None or adapter.alpha is None else adapter.scale * rank
    return LoHa(*padded(*first, rank), *padded(*second, rank), alpha=alpha)


def _lora_of(lokr: LoKr) -> tuple[Tensor, Tensor]:
    """(out, R) and (R, in·kernel) of the smallest rank R among the exact forms."""
    a, b = lokr.factor2(torch.float32, next(iter(lokr.tensors.values())).device)
    if b is None:
        a, b = as_product(a)
    if lokr.w1_a is not None and lokr.w1_b is not None:
        u, v = lokr.w1_a.to(a), lokr.w1_b.to(a)
        if u.shape[1] <= min(u.shape[0], v.shape[1]):
            return torch.kron(u, a), torch.kron(v, b)
    w1 = lokr.factor1(a.dtype, a.device)
    out_l, in_m = w1.shape
    if in_m <= out_l:
        return torch.kron(w1, a), torch.kron(torch.eye(in_m, dtype=a.dtype, device=a.device), b)
    return torch.kron(torch.eye(out_l, dtype=a.dtype, device=a.device), a), torch.kron(w1, b)
