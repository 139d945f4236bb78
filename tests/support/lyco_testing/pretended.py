"""A device that behaves as MPS does, on tensors of the CPU, under a name that torch asks no driver for.

It has no float64, no float8, no pinned memory and no factorizations, and loses what a matrix product is to write into a
part of a tensor, as MPS does before torch 2.14.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

__all__ = ["ELSEWHERE", "LACKING_DTYPES", "PretendedDevice"]

ELSEWHERE = "lazy"
_DEVICE = torch.device(ELSEWHERE, 0)
LACKING_DTYPES = {torch.float64, torch.float8_e4m3fn, torch.float8_e5m2}
"""What it has no numbers of."""
LACKING = ("linalg_qr", "linalg_svd", "linalg_solve", "linalg_lu", "linalg_inv", "linalg_eig")
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "addbmm", "addmv", "mv")


class _Elsewhere(Tensor):
    """A tensor of the CPU that says that it is elsewhere."""

    inner: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: Tensor) -> _Elsewhere:
        made = Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=_DEVICE,
        )
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {}, True)


class PretendedDevice(TorchDispatchMode):
    """Within it, in this thread, `device=ELSEWHERE` is there; `ops` counts what it did."""

    ops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        ours = any(isinstance(t, _Elsewhere) for t in tree_flatten((args, kwargs))[0])
        self.ops += ours
        return (
            _run(func, args, kwargs, ours)
            if ours or kwargs.keys() & {"device", "pin_memory"}
            else func(*args, **kwargs)
        )


def _run(func: Any, args: Any, kwargs: dict[str, Any], ours: bool) -> Any:
    asked = kwargs.get("device")
    there = ours if asked is None else _DEVICE.type == torch.device(asked).type
    inner = {**kwargs, **({"device": torch.device("cpu")} if asked is not None else {})}
    plain, named = tree_map(lambda t: t.inner if isinstance(t, _Elsewhere) else t, (args, inner))
    written = kwargs["out"] if "out" in kwargs else args[0] if _in_place(func) else None
    if kwargs.get("pin_memory"):
        raise RuntimeError("the device has no pinned memory")
    if there:
        _require_known(func, plain, named)
    if isinstance(written, _Elsewhere) and _is_product(func) and _is_part(written.inner):
        return written  # lost
    result = func(*plain, **named)
    if written is not None:
        return written
    return tree_map(lambda t: _Elsewhere(t) if there and isinstance(t, Tensor) else t, result)


def _require_known(func: Any, plain: Any, named: dict[str, Any]) -> None:
    tensors = [t for t in tree_flatten((plain, named))[0] if isinstance(t, Tensor)]
    if lacking := LACKING_DTYPES & {named.get("dtype"), *(t.dtype for t in tensors)}:
        raise TypeError(f"the device has no {lacking.pop()}")
    if func.__name__.lstrip("_").startswith(LACKING):
        raise NotImplementedError(f"{func.__name__} is not there on the device")


def _in_place(func: Any) -> bool:
    first = func._schema.arguments[0] if func._schema.arguments else None
    return first is not None and first.alias_info is not None and first.alias_info.is_write


def _is_product(func: Any) -> bool:
    return func.__name__.partition(".")[0].rstrip("_") in PRODUCTS


def _is_part(tensor: Tensor) -> bool:
    return not tensor.is_contiguous() or tensor.nbytes < tensor.untyped_storage().nbytes()
