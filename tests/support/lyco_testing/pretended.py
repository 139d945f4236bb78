"""A device that is not there: without float64, float8 and pinned memory, as Apple's; its numbers are the CPU's."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

NAME = "meta"
"""torch needs a driver for any other, even where every operation is caught before it."""
LACKS = {torch.float64, torch.float8_e4m3fn, torch.float8_e5m2}


class _There(torch.Tensor):
    """A tensor that says it is on the device."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, real: torch.Tensor):
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            real.shape,
            strides=real.stride(),
            storage_offset=real.storage_offset(),
            dtype=real.dtype,
            device=NAME,
        )
        made.held = real
        return made

    def __repr__(self) -> str:
        return f"on {NAME}: {self.held!r}"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None):
        raise AssertionError(f"{func} on the device outside of Pretended()")


class Pretended(TorchDispatchMode):
    """Inside, in this thread, there is the device; `ops` counts what it did."""

    ops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None):
        kwargs = dict(kwargs or {})
        given = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Tensor)]
        named = kwargs.get("device")
        there = any(isinstance(x, _There) for x in given) if named is None else torch.device(named).type == NAME
        if named is not None:
            kwargs["device"] = torch.device("cpu")
        if kwargs.get("pin_memory"):
            raise RuntimeError(f"Attempted to set the storage of a tensor to pinned memory: {NAME} has none")
        touches = there or any(isinstance(x, _There) for x in given)
        if there and (wrong := [x.dtype for x in given if x.dtype in LACKS]):
            raise TypeError(f"{func}: Cannot convert a {NAME} tensor to or from {wrong[0]}")
        self.ops += touches
        real = func(*tree_map(_real, args), **tree_map(_real, kwargs))
        if func._schema.is_mutable and given and isinstance(real, torch.Tensor):
            return next(x for x in given if _real(x).data_ptr() == real.data_ptr() or _real(x) is real)
        if func is torch.ops.aten.empty.memory_format and there:
            return _There(real)  # outlines of files are on this device too; there is no number in it yet
        return tree_map(_on_device, real) if there else real


def _real(x: Any) -> Any:
    return x.held if isinstance(x, _There) else x


def _on_device(x: Any) -> Any:
    if not isinstance(x, torch.Tensor):
        return x
    if x.dtype in LACKS:
        raise TypeError(f"Cannot convert a {NAME} tensor to {x.dtype}: the device has none")
    return _There(x)
