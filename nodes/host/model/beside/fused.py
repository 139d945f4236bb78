"""Callers of a Linear that multiply by its weight themselves, and how they are brought to call it.

ComfyUI's `linear_input_act` (since 0.33; more callers in 0.36) folds what comes before and after a Linear into one
kernel, and so passes by its `forward`. It does so only for the int8 layout that it knows by name, and with fp16
accumulation for plain weights that do not ask for full precision. Under a layout of another name, which computes as
that one does, and with that question answered, it calls the module.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..weights import own_parameter

INT8 = "TensorWiseINT8Layout"
"""The layout that ComfyUI multiplies by without calling the module."""

CALLED_INT8 = "LycoCalledINT8Layout"
"""The same layout under a name for which ComfyUI calls the module."""

FULL_PRECISION = "_full_precision_mm"
"""Of a module: whether fused kernels are to leave it alone. Says nothing else where the weight is plain."""


def called(module: torch.nn.Module) -> dict[str, Any]:
    """Have the module called wherever its model computes it; what `uncalled` needs to undo it."""
    weight = own_parameter(module, "weight")
    if getattr(weight, "_layout_cls", None) == INT8 and _layout_is_registered():
        weight._layout_cls = CALLED_INT8
    if hasattr(weight, "_layout_cls"):
        return {}
    before = {FULL_PRECISION: module.__dict__[FULL_PRECISION]} if FULL_PRECISION in module.__dict__ else {}
    module.__dict__[FULL_PRECISION] = True
    return before


def uncalled(module: torch.nn.Module, before: dict[str, Any]) -> None:
    """The module as it was before `called`; its weight may have been replaced or moved in between."""
    weight = own_parameter(module, "weight")
    if getattr(weight, "_layout_cls", None) == CALLED_INT8:
        weight._layout_cls = INT8
    elif not hasattr(weight, "_layout_cls"):
        module.__dict__.pop(FULL_PRECISION, None)
        module.__dict__.update(before)


def _layout_is_registered() -> bool:
    """Make the layout known, once; False where ComfyUI has none of that kind to fuse."""
    try:
        from comfy.quant_ops import TensorWiseINT8Layout, get_layout_class, register_layout_class, register_layout_op
    except ImportError:
        return False
    try:
        get_layout_class(CALLED_INT8)
    except KeyError:
        layout = type(CALLED_INT8, (TensorWiseINT8Layout,), {})
        register_layout_class(CALLED_INT8, layout)
        aten = torch.ops.aten
        for operation in (aten.linear.default, aten.mm.default, aten.addmm.default, aten.t.default):
            register_layout_op(operation, layout)(_as_int8(operation))
    return True


def _as_int8(operation: Callable[..., Any]) -> Callable[..., Any]:
    """The operation on the same numbers under the layout's own name."""

    def handler(_: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return operation(*(_renamed(argument) for argument in args), **kwargs)

    return handler


def _renamed(argument: Any) -> Any:
    from comfy.quant_ops import QuantizedTensor

    if isinstance(argument, QuantizedTensor) and argument._layout_cls == CALLED_INT8:
        return QuantizedTensor(argument._qdata, INT8, argument._params)
    return argument
