"""A device that torch knows and this machine lacks, as it behaves: MPS, on tensors of the CPU.

It has no float64 and no factorizations, and before torch 2.14 loses what a matrix product is to
write into a part of a tensor.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

__all__ = ["PretendedMPS"]

MPS = torch.device("mps", 0)
LACKING = ("linalg", "svd", "qr", "geqrf", "orgqr", "lu_")
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "addbmm", "addmv", "mv")


class _OnMPS(Tensor):
    """A tensor of the CPU that says that it is elsewhere."""

    inner: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: Tensor) -> _OnMPS:
        made = Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=MPS,
        )
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class PretendedMPS(TorchDispatchMode):
    """Within it, `device="mps"` is there."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    ours = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, _OnMPS)]
    asked = kwargs.get("device")
    there = MPS.type == torch.device(asked).type if asked is not None else bool(ours)
    inner = {**kwargs, **({"device": torch.device("cpu")} if asked is not None else {})}
    plain, named = tree_map(lambda t: t.inner if isinstance(t, _OnMPS) else t, (args, inner))
    written = kwargs["out"] if "out" in kwargs else args[0] if _in_place(func) else None
    if there:
        _require_known(func, plain, named)
    if isinstance(written, _OnMPS) and _is_product(func) and _is_part(written.inner):
        return written  # lost
    result = func(*plain, **named)
    if written is not None:
        return written
    return tree_map(lambda t: _OnMPS(t) if there and isinstance(t, Tensor) else t, result)


def _require_known(func: Any, plain: Any, named: dict[str, Any]) -> None:
    tensors = [t for t in tree_flatten((plain, named))[0] if isinstance(t, Tensor)]
    if named.get("dtype") == torch.float64 or any(t.dtype == torch.float64 for t in tensors):
        raise TypeError("MPS has no float64")
    if any(word in func.__name__ for word in LACKING):
        raise NotImplementedError(f"{func.__name__} is not there on MPS")


def _in_place(func: Any) -> bool:
    first = func._schema.arguments[0] if func._schema.arguments else None
    return first is not None and first.alias_info is not None and first.alias_info.is_write


def _is_product(func: Any) -> bool:
    return func.__name__.partition(".")[0].rstrip("_") in PRODUCTS


def _is_part(tensor: Tensor) -> bool:
    return not tensor.is_contiguous() or tensor.nbytes < tensor.untyped_storage().nbytes()
