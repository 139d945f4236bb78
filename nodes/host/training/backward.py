"""What a Linear multiplies its input by, for the gradient of that input: whatever form its weight is stored in.

Who says it differs: the loader that made the module (GGUF's packs), ComfyUI for what it stores itself, or the module
alone, which is then probed with the unit vectors. A way counts for a module only if it gives what the module computes,
which is tried once: a gradient of another function than the model's would not show in the loss.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator
from contextlib import AbstractContextManager, contextmanager
from typing import cast

import comfy.model_management
import comfy.ops
import torch
from torch import Tensor, nn

from ....lyco_core.errors import TrainError
from ....lyco_core.train.frozen import Forward, WeightOf
from ..model.linear import probed_weight
from ..model.weights import input_scale_of
from ..protocols import Linear

ROWS = 32
"""The number of inputs that a module is tried with; some packs compute fewer than 17 in another way."""

MOST = 0.3
"""The largest relative difference between a module's output and its weight's; inputs rounded to 4 bits give 0.15."""

Way = Callable[[Linear, Forward, torch.dtype], AbstractContextManager[Tensor]]
"""Lends a module's weight as a matrix of a dtype."""


def weights_of(modules: Collection[tuple[str, Linear]], dtype: torch.dtype) -> WeightOf:
    """The `WeightOf` of a model's linear modules, by name; each has its own `forward` still.

    Args:
        dtype: in which the model computes.

    Raises:
        TrainError: what a module computes is the product with no weight that is known here.
    """
    own: dict[nn.Module, Forward] = {module: _taking(dtype, module.forward) for _, module in modules}
    ways: dict[nn.Module, Way] = {module: _way(name, module, own[module], dtype) for name, module in modules}
    return lambda module, dtype: ways[module](cast("Linear", module), own[module], dtype)


def _taking(dtype: torch.dtype, forward: Forward) -> Forward:
    """The forward, always in the dtype in which the model computes."""
    return lambda x: forward(x.to(dtype))


@torch.no_grad()
def _way(name: str, module: Linear, forward: Forward, dtype: torch.dtype) -> Way:
    x = _signs(module, dtype)
    # Of signs all are as large, so that rounding them to few bits changes little; the difference has no bias.
    output = (forward(x).float() - forward(-x).float()) / 2
    for way in (_from_loader if hasattr(module, "cast_bias_weight") else _from_comfyui, _probed):
        with way(module, forward, dtype) as weight:
            if weight.shape != (module.out_features, module.in_features):
                continue
            difference = x.float() @ weight.float().t() - output
            if float(difference.norm()) <= MOST * float(output.norm()):
                return way
    raise TrainError(
        f"{name}: its weight, stored as {module.weight.dtype} by {type(module).__module__}, cannot be read: what the "
        "module computes is not the product with a matrix, so that gradients through it would be wrong; load the "
        "model's bf16, fp16 or fp8 file with ComfyUI's own loader"
    )


def _signs(module: Linear, dtype: torch.dtype) -> Tensor:
    """(ROWS, in) of one size: that of inputs, where a file says in which range they are."""
    device = comfy.model_management.get_torch_device()
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(2, (ROWS, module.in_features), generator=generator).to(device, dtype) * 2 - 1
    scale = getattr(module, "input_scale", None)
    return signs if scale is None else signs * 100 * scale.to(signs)


@contextmanager
def _from_loader(module: Linear, _: Forward, dtype: torch.dtype) -> Generator[Tensor]:
    """The weight as the pack gives it whose Linear it is."""
    device = comfy.model_management.get_torch_device()
    yield module.cast_bias_weight(dtype=dtype, device=device, bias_dtype=dtype)[0]


@contextmanager
def _from_comfyui(module: Linear, _: Forward, dtype: torch.dtype) -> Generator[Tensor]:
    """The weight as ComfyUI multiplies with it: moved, cast, with patches that are applied on the way."""
    device = comfy.model_management.get_torch_device()
    lends = getattr(comfy.ops, "uncast_bias_weight", None)  # 0.28
    asked = {"dtype": dtype, "device": device, "bias_dtype": dtype} | ({"offloadable": True} if lends else {})
    weight, bias, *stream = comfy.ops.cast_bias_weight(module, **asked)
    try:
        values = weight.dequantize() if hasattr(weight, "_layout_cls") else weight
        for scale in (getattr(module, "scale_weight", None), input_scale_of(module)):  # 0.3.64's; per input
            values = values if scale is None else values * scale.to(values)
        yield values
    finally:
        if lends:
            lends(module, weight, bias, *stream)


@contextmanager
def _probed(module: Linear, forward: Forward, dtype: torch.dtype) -> Generator[Tensor]:
    """The weight as the module's own products tell it, at the cost of one with as many inputs as it has columns."""
    device = comfy.model_management.get_torch_device()
    yield probed_weight(forward, module.in_features, dtype, device).to(dtype)
