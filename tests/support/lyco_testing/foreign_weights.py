"""Linears as other packs' loaders keep them: GGUF's raw bytes, int8 codes in a plain Parameter.

They stand in for ComfyUI-GGUF and ComfyUI-INT8-Fast: the same attributes, shapes and hand-overs, written anew.
"""

import enum
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from .quantized_models import FORMATS, base_file, float_weights, known_as, linears, load, why_not

FORMS = ("gguf_f16", "gguf_bf16", "gguf_q8_0", "int8_fast", "int8_fast_row", "int8_fast_rotated")
EVERY = (*FORMATS, *FORMS)
"""In which a base can be that a person loads: ComfyUI's formats, and these."""

GROUP = 128
"""Columns that INT8-Fast rotates together."""


class GGMLType(enum.IntEnum):
    """Numbers of the `gguf` package's GGMLQuantizationType."""

    F32 = 0
    F16 = 1
    Q8_0 = 8
    BF16 = 30


class GGMLTensor(Tensor):
    """Bytes of a GGUF file; says the shape of what they stand for, and is its own clone."""

    tensor_type: GGMLType | None = None  # of what operations make of one
    tensor_shape: torch.Size
    patches: Sequence[Any] = ()

    @staticmethod
    def of(stored: Tensor, kind: GGMLType, shape: torch.Size) -> "GGMLTensor":
        made = stored.as_subclass(GGMLTensor)
        made.tensor_type, made.tensor_shape, made.patches = kind, shape, []
        return made

    def to(self, *args, **kwargs):
        made = super().to(*args, **kwargs)
        made.tensor_type, made.tensor_shape = self.tensor_type, self.shape
        made.patches = list(self.patches)
        return made

    def clone(self, *args, **kwargs):
        return self

    def detach(self):
        return self

    @property
    def shape(self):
        return getattr(self, "tensor_shape", self.size())


def gguf(weight: Tensor, kind: GGMLType) -> GGMLTensor:
    """A matrix as the `gguf` package's reader gives it."""
    if kind in (GGMLType.F32, GGMLType.F16):
        stored = weight.to(torch.float16 if kind == GGMLType.F16 else torch.float32)
    elif kind == GGMLType.BF16:
        stored = weight.to(torch.bfloat16).view(torch.uint8)
    else:  # blocks of 32 numbers: an fp16 scale, 32 codes
        blocks = weight.reshape(-1, 32)
        scale = blocks.abs().amax(1, keepdim=True) / 127
        codes = (blocks / scale).round().to(torch.int8)
        stored = torch.cat([scale.half().view(torch.uint8), codes.view(torch.uint8)], 1).reshape(weight.shape[0], -1)
    return GGMLTensor.of(stored, kind, weight.shape)


def ungguf(stored: GGMLTensor, dtype: torch.dtype | None) -> Tensor:
    """The numbers; blocks are multiplied out in fp16, as the pack does where it is not told another dtype."""
    raw = stored.as_subclass(Tensor)
    if stored.tensor_type in (GGMLType.F32, GGMLType.F16):
        return raw.to(dtype)
    if stored.tensor_type == GGMLType.BF16:
        return raw.view(torch.bfloat16).reshape(stored.tensor_shape).to(dtype)
    blocks = raw.reshape(-1, 34)
    scale, codes = blocks[:, :2].contiguous().view(torch.float16), blocks[:, 2:].contiguous().view(torch.int8)
    return (scale * codes).reshape(stored.tensor_shape).to(dtype)


@functools.cache
def gguf_ops():
    """The `custom_operations` of ComfyUI-GGUF's loader."""
    import comfy.lora
    import comfy.ops

    class Operations(comfy.ops.manual_cast):
        class Linear(comfy.ops.manual_cast.Linear):
            dequant_dtype = None
            patch_dtype = None

            def __init__(self, in_features, out_features, bias=True, device=None, dtype=None):
                nn.Module.__init__(self)
                self.in_features, self.out_features = in_features, out_features
                self.weight = self.bias = None

            def _load_from_state_dict(self, state_dict, prefix, *_):
                for name in ("weight", "bias"):
                    if (value := state_dict.get(f"{prefix}{name}")) is not None:
                        setattr(self, name, nn.Parameter(value, requires_grad=False))

            def _save_to_state_dict(self, destination, prefix, keep_vars):
                """For the estimate of memory alone: what it stores is not there, and shaped as bytes."""
                if self.weight.tensor_type in (GGMLType.F32, GGMLType.F16):
                    return super()._save_to_state_dict(destination, prefix, keep_vars)
                for name, value in self.named_parameters():
                    destination[f"{prefix}{name}"] = torch.zeros(value.size(), dtype=value.dtype, device="meta")

            def get_weight(self, tensor, dtype):
                if tensor is None:
                    return None
                weight = ungguf(tensor, dtype)
                for patches, key in tensor.patches:
                    weight = comfy.lora.calculate_weight(patches, weight, key)
                return weight

            def cast_bias_weight(self, input=None, dtype=None, device=None, bias_dtype=None):
                dtype = input.dtype if dtype is None else dtype
                device = input.device if device is None else device
                bias = self.get_weight(None if self.bias is None else self.bias.to(device), bias_dtype or dtype)
                return self.get_weight(self.weight.to(device), dtype), bias

            def forward_comfy_cast_weights(self, input, *args, **kwargs):
                if self.weight.tensor_type in (GGMLType.F32, GGMLType.F16):
                    return super().forward_comfy_cast_weights(input, *args, **kwargs).as_subclass(Tensor)
                weight, bias = self.cast_bias_weight(input)
                return linear(input, weight, bias)

    return Operations


@functools.cache
def gguf_patcher():
    """ComfyUI-GGUF's ModelPatcher: a patch waits on the tensor until its numbers are wanted."""
    import comfy.model_patcher
    import comfy.utils

    class Patcher(comfy.model_patcher.ModelPatcher):
        def patch_weight_to_device(self, key, device_to=None, inplace_update=False, **more):
            weight = comfy.utils.get_attr(self.model, key)
            waiting = getattr(weight, "tensor_type", GGMLType.F32) not in (GGMLType.F32, GGMLType.F16)
            if key not in self.patches or not waiting:
                return super().patch_weight_to_device(key, device_to, inplace_update, **more)
            patched = weight.to(device_to)
            patched.patches = [(self.patches[key], key)]
            return comfy.utils.set_attr_param(self.model, key, patched)

        def unpatch_model(self, device_to=None, unpatch_weights=True):
            for parameter in self.model.parameters() if unpatch_weights else ():
                if getattr(parameter, "patches", None):
                    parameter.patches = []
            return super().unpatch_model(device_to, unpatch_weights)

        def load(self, *args, force_patch_weights=False, **kwargs):
            super().load(*args, force_patch_weights=True, **kwargs)

        def clone(self, *args, **kwargs):
            made = super().clone(*args, **kwargs)
            made.__class__ = Patcher
            return made

    return Patcher


def hadamard(size: int) -> Tensor:
    """Orthogonal, of a power of two."""
    matrix = torch.ones(1, 1)
    while matrix.shape[0] < size:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix / size**0.5


def rotated(rows: Tensor) -> Tensor:
    return (rows.reshape(-1, GROUP) @ hadamard(GROUP).to(rows)).reshape(rows.shape)


@functools.cache
def int8_ops(rotate: bool = False):
    """The `custom_operations` of ComfyUI-INT8-Fast's loader, for a file of codes and scales."""
    import comfy.ops

    class Operations(comfy.ops.manual_cast):
        class Linear(comfy.ops.manual_cast.Linear):
            def __init__(self, *args, **kwargs):
                super().__init__(*args, **kwargs)
                self.register_buffer("weight_scale", None)
                self._weight_scale_scalar = None
                self._is_quantized = self._is_per_row = self._use_quarot = False

            def _load_from_state_dict(self, state_dict, prefix, *_):
                self.weight = nn.Parameter(state_dict[f"{prefix}weight"], requires_grad=False)
                bias = state_dict.get(f"{prefix}bias")
                self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
                scale = state_dict.get(f"{prefix}weight_scale")
                self._is_quantized = scale is not None
                self._use_quarot = self._is_quantized and rotate
                if self._is_quantized and scale.numel() == 1:
                    self._weight_scale_scalar = scale.item()
                elif self._is_quantized:
                    self.weight_scale, self._is_per_row = scale, True

            def _get_weight_scale(self):
                return self.weight_scale if self._weight_scale_scalar is None else self._weight_scale_scalar

            def convert_weight(self, _weight, inplace=False):
                return self.weight if self._is_quantized else _weight

            def set_weight(self, out_weight, inplace_update=False, seed=0, return_weight=False, **kwargs):
                if self._is_quantized and out_weight.dtype != torch.int8:
                    out_weight = (out_weight / self._get_weight_scale()).round().clamp(-128, 127)
                out_weight = out_weight.to(self.weight.dtype)
                if return_weight:
                    return out_weight
                self.weight = nn.Parameter(out_weight, requires_grad=False)
                return None

            def forward(self, x):
                if not self._is_quantized:
                    return super().forward(x)
                rows = x.reshape(-1, x.shape[-1])
                rows = rotated(rows) if self._use_quarot else rows
                scales = self._get_weight_scale()
                if len(rows) <= 16:
                    made = linear(rows, (self.weight.float() * scales).to(x.dtype), self.bias)
                    return made.reshape(*x.shape[:-1], -1)
                width = x.dtype if x.dtype in (torch.float16, torch.bfloat16) else torch.bfloat16
                scale = (rows.abs().amax(1, keepdim=True).float() / 127).clamp(min=1e-30)
                codes = (rows.float() / scale).round().to(torch.int8)
                sums = torch._int_mm(codes, self.weight.T).float() * scale
                made = (sums * (scales.T if self._is_per_row else scales)).to(width)
                made = made if self.bias is None else made + self.bias.to(width)
                return made.reshape(*x.shape[:-1], -1)

    return Operations


def foreign_model(family: str, form: str) -> tuple[Any, dict[str, Tensor]]:
    """(a MODEL as the pack's loader node gives it, the numbers of its weights in float32)."""
    import comfy.sd

    tensors = float_weights(family)
    numbers = dict(tensors)
    inside = {f"{path}.weight" for path in linears(family)}
    state: dict[str, Tensor] = {}
    for key, weight in tensors.items():
        if form.startswith("gguf"):
            kind = GGMLType[form.removeprefix("gguf_").upper()] if key in inside else GGMLType.F32
            state[key] = gguf(weight, kind)
            numbers[key] = ungguf(state[key], torch.float32)
        elif key in inside:
            weight = rotated(weight) if form.endswith("rotated") else weight
            size = weight.abs().max() if form == "int8_fast" else weight.abs().amax(1, keepdim=True)
            scale = size / 127
            state[key], state[f"{key}_scale"] = (weight / scale).round().to(torch.int8), scale
            numbers[key] = state[key].float() * scale
            numbers[key] = rotated(numbers[key]) if form.endswith("rotated") else numbers[key]
        else:
            state[key] = weight.clone()
    operations = gguf_ops() if form.startswith("gguf") else int8_ops(form.endswith("rotated"))
    with known_as(family), torch.inference_mode():
        model = comfy.sd.load_diffusion_model_state_dict(state, model_options={"custom_operations": operations})
        if form.startswith("gguf"):
            model.__class__ = gguf_patcher()
    return model, numbers


def base_model(folder: Path, family: str, form: str) -> tuple[Any, dict[str, Tensor]]:
    """(a MODEL, the numbers of its weights in float32) in a form of EVERY; skips where this ComfyUI has none."""
    if form in FORMS:
        return foreign_model(family, form)
    if reason := why_not(form):
        pytest.skip(reason)
    file, numbers = base_file(folder, family, form)
    return load(family, file), numbers
