"""One weight of a ComfyUI model as numbers, and back into the form in which the model holds it."""

from __future__ import annotations

import contextlib
from typing import Any, cast

import comfy.utils
import torch
from torch import Tensor, nn

from ....lyco_core.devices import knows
from ....lyco_core.errors import MergeError
from ....lyco_core.quantized.kitchen import in_torch
from ....lyco_core.quantized.rounding import largest, round_to
from ..protocols import Linear

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

IN_TORCH = ("TensorCoreMXFP8Layout", "TensorCoreNVFP4Layout")
"""The layouts whose CUDA kernels do not round float32, so that torch rounds instead."""


def require_mergeable(model: nn.Module, key: str) -> None:
    """Raise `MergeError` unless numbers can be added to what the model holds."""
    weight = comfy.utils.get_attr(model, key)
    layout = layout_of(weight)
    plain = type(weight) in (Tensor, nn.Parameter) and weight.is_floating_point()
    if layout not in LAYOUTS and (layout or not plain):
        what = layout or gguf_type(weight) or f"{type(weight).__name__} of {weight.dtype}"
        raise MergeError(
            f"{key}: is stored as {what}, which nothing can be merged into; load the model's bf16 file, "
            "or use Load LoHa/LoKr, which changes no weight"
        )


def read_weight(model: nn.Module, key: str, device: torch.device) -> Tensor:
    """A float32 copy of a weight on `device`, its scale applied."""
    weight = comfy.utils.get_attr(model, key)
    if layout_of(weight) is not None:
        values = dequantized(weight).to(device, copy=True)
        scale = _scale_of_inputs(model, key)
        return values if scale is None else values.mul_(scale.to(values))
    there = device if knows(str(device), weight.dtype) else weight.device
    values = weight.to(there, torch.float32, copy=True).to(device)
    scale = scale_of(model, key)
    return values if scale is None else values.mul_(scale.to(values))


def dequantized(weight: Tensor) -> Tensor:
    """What a quantized tensor stands for, in float32; asked in the mode that it was made in."""
    with torch.inference_mode(weight.is_inference()):
        return weight.to(dtype=torch.float32).dequantize()


def requantized(weight: Any, values: Tensor) -> Tensor:
    """float32 `values` in the layout of a quantized tensor, rounded to the nearest under fresh scales."""
    with in_torch() if layout_of(weight) in IN_TORCH else contextlib.nullcontext():
        return weight.requantize_from_float(values, scale="recalculate", stochastic_rounding=0)


def write_weight(model: nn.Module, key: str, values: Tensor) -> None:
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
        scale = _scale_of_inputs(model, key)
        values = values if scale is None else values / scale.to(values)
        # In inference mode torch cannot detach such a tensor that was made outside, and ComfyUI does.
        with torch.inference_mode(weight.is_inference()):
            comfy.utils.set_attr_param(model, key, requantized(weight, values).to(weight.dtype))
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


def _scale_of_inputs(model: nn.Module, key: str) -> Tensor | None:
    """`input_scale_of` of a key's module as float32 numbers to divide by; what is multiplied by 0 has no say."""
    scale = input_scale_of(comfy.utils.get_attr(model, key.rpartition(".")[0]))
    return None if scale is None else scale.float().masked_fill(scale == 0, 1).reshape(-1)


def layout_of(weight: Tensor) -> str | None:
    """The name of a quantized tensor's layout (since 0.28), or None."""
    return getattr(weight, "_layout_cls", None)


def gguf_type(weight: Tensor | None) -> str | None:
    """What a weight of a GGUF file is stored as, `Q8_0` say; its loaders keep it in `tensor_type`. None for others."""
    kind = getattr(weight, "tensor_type", None)
    return None if kind is None else str(getattr(kind, "name", kind))


def linear_at(model: nn.Module, path: str) -> Linear:
    """The linear module of a path."""
    return cast("Linear", model.get_submodule(path))


def own_parameter(module: nn.Module, name: str) -> Any:
    """A parameter as the module holds it, or None, whatever its class makes of the name."""
    return vars(module)["_parameters"].get(name)


def is_linear(model: nn.Module, key: str) -> bool:
    """Whether a key names the weight of a linear module."""
    path, _, last = key.rpartition(".")
    return last == "weight" and hasattr(model.get_submodule(path), "in_features")


def is_quantized(model: nn.Module, key: str) -> bool:
    """Whether a weight's stored numbers are coarser than half precision, as a patch would have to be."""
    weight = comfy.utils.get_attr(model, key)
    if (kind := gguf_type(weight)) is not None:
        return kind not in ("F32", "F16", "BF16")
    return layout_of(weight) is not None or scale_of(model, key) is not None or weight.dtype.itemsize == 1


def is_readable(model: nn.Module, key: str) -> bool:
    """Whether ComfyUI, or the weight's own loader, can say what numbers it stands for."""
    weight = comfy.utils.get_attr(model, key)
    known = layout_of(weight) is not None or gguf_type(weight) is not None
    return known or weight.is_floating_point()


def is_rounded(model: nn.Module, key: str) -> bool:
    """Whether a patched weight is stored in its coarse form again; GGUF's packs patch what they read, in every call."""
    return gguf_type(comfy.utils.get_attr(model, key)) is None


def stored_as(model: nn.Module, key: str) -> str:
    """How a weight is stored, in words: its layout, its GGUF type or its dtype."""
    weight = comfy.utils.get_attr(model, key)
    return layout_of(weight) or gguf_type(weight) or str(weight.dtype).removeprefix("torch.")


def modules_of(model: nn.Module) -> dict[str, nn.Module]:
    """Path -> module, of all that a model is made of: what `named_modules` tells, in a fraction of its time."""
    found = {"": model}
    above = [("", model)]
    while above:
        path, module = above.pop()
        for name, child in vars(module)["_modules"].items():
            if child is not None:
                found[path + name] = child
                above.append((f"{path}{name}.", child))
    return found


def holds(module: nn.Module, name: str) -> bool:
    """Whether a module has a parameter or a buffer of that name."""
    own = vars(module)
    return own["_parameters"].get(name) is not None or own["_buffers"].get(name) is not None


def held_shapes(model: nn.Module) -> dict[str, torch.Size]:
    """Key -> shape of what a model's modules hold, quickly: whether anything came, went or was resized."""
    return {
        f"{path}.{name}" if path else name: tensor.shape
        for path, module in modules_of(model).items()
        for kind in ("_parameters", "_buffers")
        for name, tensor in vars(module)[kind].items()
        if tensor is not None
    }


def weight_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of a model's weights; of quantized ones, the shape that they stand for."""
    shapes = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    return shapes | {key: tuple(p.shape) for key, p in model.named_parameters() if key in shapes}


def packed_keys(model: nn.Module) -> set[str]:
    """Keys of weights that are codes whose meaning nobody tells: their shapes are not those of what they stand for."""
    parameters = model.named_parameters()
    return {k for k, p in parameters if not (p.is_floating_point() or layout_of(p) or gguf_type(p))}


def input_scale_of(module: nn.Module) -> Tensor | None:
    """(in,) by which a module multiplies its input before its weight (AWQ's smoothing, ComfyUI 0.30), or None."""
    return getattr(module, "pre_quant_scale", None)


def scaled_weight(model: nn.Module, key: str, values: Tensor) -> Tensor:
    """`values` times the scale that 0.3.64 keeps beside a float8 weight."""
    scale = scale_of(model, key)
    return values if scale is None else values * scale.to(values)


def scale_key(key: str) -> str:
    """Where 0.3.64 keeps the scale of a float8 weight."""
    return f"{key.rpartition('.')[0]}.scale_weight"


def scale_of(model: nn.Module, key: str) -> Tensor | None:
    """The scale that 0.3.64 keeps beside a float8 weight, or None; newer ones have quantized tensors instead."""
    return getattr(model.get_submodule(key.rpartition(".")[0]), "scale_weight", None)
