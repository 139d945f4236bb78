"""One weight of a ComfyUI model as numbers, and back into the form in which the model holds it."""

from __future__ import annotations

import comfy.utils
import torch
from torch import Tensor

from ...lyco_core.devices import knows
from ...lyco_core.errors import MergeError
from ...lyco_core.quantized.rounding import largest, round_to

__all__ = ["is_quantized", "read_weight", "require_mergeable", "write_weight"]

LAYOUTS = (
    "TensorCoreFP8Layout",
    "TensorCoreFP8E4M3Layout",
    "TensorCoreFP8E5M2Layout",
    "TensorCoreMXFP8Layout",
    "TensorCoreNVFP4Layout",
    "TensorWiseINT8Layout",
    "TensorCoreConvRotW4A4Layout",
    "AsymW4A8Int8Layout",
)
"""ComfyUI's layouts of quantized weights that numbers are read from and written to."""


def require_mergeable(model, key: str) -> None:
    """Raise `MergeError` unless numbers can be added to what the model holds."""
    weight = comfy.utils.get_attr(model, key)
    layout = layout_of(weight)
    plain = type(weight) in (Tensor, torch.nn.Parameter) and weight.is_floating_point()
    if layout not in LAYOUTS and (layout or not plain):
        # city96's GGUF loader keeps the format's name in `tensor_type`.
        what = layout or getattr(weight, "tensor_type", None) or f"{type(weight).__name__} of {weight.dtype}"
        raise MergeError(
            f"{key}: is stored as {what}, which nothing can be merged into; load the model's bf16 file, "
            "or use Load LoHa/LoKr, which changes no weight"
        )


def read_weight(model, key: str, device: torch.device) -> Tensor:
    """A float32 copy on `device`, its scale applied."""
    weight = comfy.utils.get_attr(model, key)
    if layout_of(weight) is not None:
        with torch.inference_mode(weight.is_inference()):
            values = weight.to(dtype=torch.float32).dequantize()
        values = values.to(device, copy=True)
        scale = input_scale_of(model, key)
        return values if scale is None else values.mul_(scale.to(values))
    there = device if knows(str(device), weight.dtype) else weight.device
    values = weight.to(there, torch.float32, copy=True).to(device)
    scale = scale_of(model, key)
    return values if scale is None else values.mul_(scale.to(values))


def write_weight(model, key: str, values: Tensor) -> None:
    """Replace a weight by float32 `values`, rounded to the nearest that its dtype or layout has, under fresh scales.

    Raises:
        MergeError: a number is out of the dtype's range.
    """
    weight = comfy.utils.get_attr(model, key)
    values = values.to(weight.device)
    scaled = layout_of(weight) is not None or scale_of(model, key) is not None
    # The sum of all is finite only if each is, and the much faster test.
    if not bool(torch.isfinite(values.sum())) and not bool(torch.isfinite(values).all()):
        was = torch.isfinite(read_weight(model, key, weight.device))
        if scaled or bool((was & ~torch.isfinite(values)).any()):
            raise MergeError(f"{key}: the result is NaN or infinite; lower the strength, or use another base")
    if layout_of(weight) is not None:
        scale = input_scale_of(model, key)
        values = values if scale is None else values / scale.to(values)
        # In inference mode torch cannot detach such a tensor that was made outside, and ComfyUI does.
        with torch.inference_mode(weight.is_inference()):
            stored = weight.requantize_from_float(values, scale="recalculate", stochastic_rounding=0)
            comfy.utils.set_attr_param(model, key, stored.to(weight.dtype))
        return
    if (scale := scale_of(model, key)) is not None:
        limit = torch.finfo(weight.dtype).max
        scale = torch.full_like(scale, max(largest(values) / limit, 1e-8))
        comfy.utils.set_attr_param(model, scale_key(key), scale)
        values = values.div_(scale.to(values)).clamp_(-limit, limit)
    try:
        comfy.utils.set_attr_param(model, key, round_to(values, weight.dtype))
    except MergeError as error:
        raise error.within(key) from None


def input_scale_of(model, key: str) -> Tensor | None:
    """What the module multiplies its input with before a quantized weight, whose W is then W·diag(s); or None."""
    scale = getattr(comfy.utils.get_attr(model, key.rpartition(".")[0]), "pre_quant_scale", None)
    return None if scale is None else scale.float().masked_fill(scale == 0, 1).reshape(-1)


def layout_of(weight: Tensor) -> str | None:
    """The name of a quantized tensor's layout (0.28), or None."""
    return getattr(weight, "_layout_cls", None)


def is_quantized(model, key: str) -> bool:
    """Whether a weight is stored under a scale or in blocks, so that a patch would be rounded as coarsely."""
    weight = comfy.utils.get_attr(model, key)
    return layout_of(weight) is not None or hasattr(weight, "tensor_type") or scale_of(model, key) is not None


def is_coarse(model, key: str) -> bool:
    """Whether rounding to what a weight is stored in may swallow a change of it."""
    return is_quantized(model, key) or comfy.utils.get_attr(model, key).element_size() == 1


def scale_key(key: str) -> str:
    """Where 0.3.64 keeps the scale of a float8 weight."""
    return f"{key.rpartition('.')[0]}.scale_weight"


def scale_of(model, key: str) -> Tensor | None:
    """That scale, or None: ComfyUI 0.28 has quantized tensors instead."""
    module = comfy.utils.get_attr(model, key.rpartition(".")[0])
    return getattr(module, "scale_weight", None)
