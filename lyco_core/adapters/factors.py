"""Shape checks and the Tucker rule that the low-rank algorithms share."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import AdapterError

__all__ = [
    "as_product",
    "factorization",
    "low_rank",
    "one_dtype",
    "padded",
    "product_of",
    "require_matrix",
    "require_product",
    "require_tensors",
]


def require_tensors(named: dict[str, Tensor | None], title: str, form: str) -> None:
    """Raise `AdapterError` naming the tensors of `named` that are missing from a `title`."""
    missing = [name for name, tensor in named.items() if tensor is None]
    if missing:
        present = [name for name, tensor in named.items() if tensor is not None]
        raise AdapterError(
            f"{' and '.join(missing)} missing; a {title} needs {form}; found {', '.join(present) or 'nothing'}; "
            "the file is incomplete, save or download it again"
        )


def require_matrix(name: str, tensor: Tensor, dimensions: int = 2) -> None:
    """Raise `AdapterError` unless `tensor` has at least `dimensions` dimensions and no empty one."""
    if tensor.dim() < dimensions or tensor.numel() == 0:
        raise AdapterError(f"{name} has shape {list(tensor.shape)}, expected {dimensions} or more non-empty dimensions")


def require_product(
    a_name: str, a: Tensor, b_name: str, b: Tensor, mid_name: str = "", mid: Tensor | None = None
) -> None:
    """Raise `AdapterError` unless `a` (out, r) and `b` (r, in, *kernel) share the rank r.

    With a Tucker core `mid`: unless a is (r, out), b (r, in), and the core (r, r, *kernel).
    """
    require_matrix(a_name, a)
    require_matrix(b_name, b)
    kernels = a.shape[2:] if mid is None else a.shape[2:] + b.shape[2:]
    if any(n != 1 for n in kernels) or (mid is not None and kernels):
        raise AdapterError(
            f"{a_name} {list(a.shape)} and {b_name} {list(b.shape)}: a kernel where none can be; the file is damaged"
        )
    inner_a = a.shape[1] if mid is None else a.shape[0]
    inner_b = b.shape[0]
    if inner_a != inner_b:
        raise AdapterError(
            f"{a_name} {list(a.shape)} and {b_name} {list(b.shape)} cannot multiply: "
            f"rank {inner_a} against {inner_b}; the file is damaged or mixes two adapters"
        )
    if mid is not None and (mid.dim() < 3 or tuple(mid.shape[:2]) != (inner_a, inner_b)):
        raise AdapterError(
            f"{mid_name} has shape {list(mid.shape)}, expected [{inner_a}, {inner_b}, *kernel] "
            f"between {a_name} and {b_name}"
        )


def low_rank(
    a: Tensor, b: Tensor, mid: Tensor | None, dtype: torch.dtype | None, device: torch.device
) -> tuple[Tensor, Tensor]:
    """The two flat factors of a low-rank matrix: (out, r) and (r, in·kernel).

    Without `mid`: a (out, r, …ones), b (r, in, *kernel). Tucker (LyCORIS): a (r, out), b (r, in),
    mid (r, r, *kernel), for which ``einsum("ij…,ip,jq->pq…", mid, a, b)`` is the weight; folding
    mid into b leaves a plain product.

    dtype: of the results; None for those that a and b have, with `mid`, which makes sums, float32.
    """
    dtype = torch.float32 if dtype is None and mid is not None else dtype
    a = a.to(device, dtype)
    b = b.to(device, dtype)
    if mid is None:
        return a.flatten(1), b.flatten(1)
    core = torch.einsum("ij...,jq->iq...", mid.to(device, dtype), b)
    return a.t().contiguous(), core.reshape(core.shape[0], -1)


def padded(a: Tensor, b: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The factors (out, r) and (r, in) of a product, with zeros up to `rank`, which do not change it."""
    more = rank - b.shape[0]
    return torch.nn.functional.pad(a, (0, more)), torch.nn.functional.pad(b, (0, 0, 0, more))


def as_product(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix (out, in) as a product of two, itself and the identity, of rank min(out, in)."""
    eye = torch.eye(min(matrix.shape), dtype=matrix.dtype, device=matrix.device)
    return (matrix, eye) if matrix.shape[1] <= matrix.shape[0] else (eye, matrix)


def product_of(full: Tensor | None, a: Tensor | None, b: Tensor | None) -> tuple[Tensor, Tensor]:
    """A factor that is there whole, or as `a` and `b`, as a product of two flat matrices; without a Tucker core."""
    if full is None:
        assert a is not None and b is not None
        return a, b.flatten(1)
    return as_product(full.flatten(1))


def factorization(dimension: int, factor: int) -> tuple[int, int]:
    """Two numbers whose product is `dimension`, the smaller one first (LyCORIS' dialect, which is Musubi's).

    `factor`: above 0 one of the two, or, if it is no divisor, what the smaller one may not exceed;
    below 0 for the two that are closest.
    """
    if factor > 0 and dimension % factor == 0:
        return min(factor, dimension // factor), max(factor, dimension // factor)
    most = math.isqrt(dimension) if factor < 0 else min(factor, math.isqrt(dimension))
    small = next(n for n in range(most, 0, -1) if dimension % n == 0)
    return small, dimension // small


def one_dtype(tensors: list[Tensor]) -> list[Tensor]:
    """The tensors in the dtype that holds them all exactly."""
    dtype = tensors[0].dtype
    for tensor in tensors[1:]:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return [tensor.to(dtype) for tensor in tensors]
