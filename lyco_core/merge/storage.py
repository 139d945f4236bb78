"""How a checkpoint stores its weights: plain, scaled float8, or in a way that nothing can be merged into."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, cast

import torch
from torch import Tensor

from ..errors import FileError, MergeError
from ..io import Checkpoint, TensorInfo
from ..io.reader import TORCH_DTYPES

__all__ = ["PLAIN", "QUANTIZATION_METADATA", "SCALED_MARKER", "Scaling", "companions", "scaling_of", "unmergeable"]

PLAIN = {"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"}
"""Dtypes that are numbers by themselves."""

QUANTIZATION_METADATA = "_quantization_metadata"
"""ComfyUI's metadata key: JSON of `layers`, module path -> format, where there are no `comfy_quant` tensors."""

_SCALES = ("scale_weight", "weight_scale")
"""What stands beside a scaled `weight`: ComfyUI's older name, which is Musubi's too, and its newer."""

SCALED_MARKER = "scaled_fp8"
"""A tensor of no numbers that says that a model's float8 weights have scales: ComfyUI's older form, and Musubi's."""

_COMPANIONS = (*_SCALES, "scale_input", "input_scale", "comfy_quant")

_COMFY_FORMATS = {
    "nvfp4": "NVFP4",
    "mxfp8": "MXFP8",
    "int8_tensorwise": "INT8",
    "convrot_w4a4": "ConvRot W4A4",
    "float8_e4m3fn": None,
    "float8_e5m2": None,
}
"""ComfyUI's name of a format -> its title where nothing can be merged into it."""

_TELLTALES = {
    "weight_scale_2": "NVFP4",
    "weight.absmax": "bitsandbytes NF4",
    "SCB": "bitsandbytes INT8",
    "qweight": "SVDQuant or GPTQ",
}
"""Tensor beside the weight, or in its place -> the format that has it."""


@dataclasses.dataclass(frozen=True)
class Scaling:
    """A float8 weight (out, in) times its scale: one number, one for each row, or one for each block of a row.

    Shapes of the scale: () or (1,); (out,) or (out, 1); (out, blocks, 1).
    """

    key: str
    """The scale's."""
    shape: tuple[int, ...]
    dtype: torch.dtype
    weight_dtype: torch.dtype

    @property
    def whole(self) -> bool:
        """Whether one number scales the whole weight."""
        return torch.Size(self.shape).numel() == 1

    def multiply_(self, values: Tensor, scale: Tensor) -> Tensor:
        """Rows (n, in) times their part of the scale, in place."""
        self._groups(values).mul_(scale.to(torch.float32).reshape(self._scale_shape(values.shape[0])))
        return values

    def fresh(self, values: Tensor) -> Tensor:
        """The scale of rows (n, in) that puts each group's largest number at the end of float8's range."""
        peak = self._groups(values).abs().amax(dim=(0, 1, 2) if self.whole else 2)
        return self.of_peak(peak)

    def of_peak(self, peak: Tensor) -> Tensor:
        """The scale in its own dtype for groups whose largest magnitudes are `peak`."""
        least = max(1e-8, torch.finfo(self.dtype).smallest_normal)  # below, float16 has few digits, and then 0
        return (peak / torch.finfo(self.weight_dtype).max).clamp_(min=least).to(self.dtype)

    def divide_(self, values: Tensor, scale: Tensor) -> Tensor:
        """Rows (n, in) over their scale, in place, kept in float8's range."""
        limit = torch.finfo(self.weight_dtype).max
        self._groups(values).div_(scale.to(torch.float32).reshape(self._scale_shape(values.shape[0])))
        return values.clamp_(-limit, limit)

    def rows(self, start: int, stop: int) -> tuple[int, int]:
        """First and last element of the scale for rows start:stop."""
        each = 0 if self.whole else torch.Size(self.shape[1:]).numel()
        return (start * each, stop * each) if each else (0, 1)

    def _groups(self, values: Tensor) -> Tensor:
        blocks = self.shape[1] if len(self.shape) == 3 else 1
        return values.view(values.shape[0], blocks, -1)

    def _scale_shape(self, rows: int) -> tuple[int, int, int]:
        return (1, 1, 1) if self.whole else (rows, self.shape[1] if len(self.shape) == 3 else 1, 1)


def scaling_of(checkpoint: Checkpoint, key: str) -> Scaling | None:
    """The scale of a float8 weight, or None if it has none.

    Raises:
        MergeError: its shape fits neither the weight, its rows, nor blocks of them.
    """
    info = checkpoint.tensors[key]
    if not info.dtype.startswith("F8_E"):
        return None
    names = (f"{key.removesuffix('weight')}{name}" for name in _SCALES)
    scale_key = next((name for name in names if name in checkpoint.holder), None)
    if scale_key is None:
        return None
    scale = checkpoint.tensors[scale_key]
    rows, columns = info.shape[0], torch.Size(info.shape[1:]).numel()
    fits = (
        torch.Size(scale.shape).numel() == 1
        or scale.shape in ((rows,), (rows, 1))
        or (len(scale.shape) == 3 and scale.shape[::2] == (rows, 1) and columns % scale.shape[1] == 0)
    )
    if not fits or scale.dtype not in ("F32", "F16", "BF16"):
        raise MergeError(
            f"{scale_key}: a scale of {scale.dtype} {list(scale.shape)} for a weight of {list(info.shape)}; "
            "expected one number, one for each row, or one for each block of a row"
        )
    return Scaling(scale_key, scale.shape, TORCH_DTYPES[scale.dtype], TORCH_DTYPES[info.dtype])


def companions(checkpoint: Checkpoint, key: str) -> list[str]:
    """Keys of what belongs to a scaled weight and to nothing else."""
    names = (f"{key.removesuffix('weight')}{name}" for name in _COMPANIONS)
    return [name for name in names if name in checkpoint.holder]


def unmergeable(checkpoint: Checkpoint, prefix: str) -> dict[str, str]:
    """Module path -> format, of the diffusion model's modules that nothing can be merged into."""
    declared = _declared(checkpoint)
    found: dict[str, str] = {}
    for key, info in checkpoint.tensors.items():
        if not key.startswith(prefix):
            continue
        stem, _, name = key.removeprefix(prefix).rpartition(".")
        if name == "comfy_quant":
            declared[prefix + stem] = _parsed(key, bytes(_read(checkpoint, key)))
        for suffix, title in _TELLTALES.items():
            if key.endswith(f".{suffix}"):
                found[key.removeprefix(prefix).removesuffix(f".{suffix}")] = title
        if name == "weight" and info.dtype not in PLAIN:
            found.setdefault(stem, {"I8": "INT8"}.get(info.dtype, f"packed {info.dtype}"))
        if name in _SCALES and info.dtype in ("U8", "F8_E8M0"):
            found.setdefault(stem, "MXFP8")
    for path, entry in declared.items():
        format_name = str(entry.get("format"))
        title = _COMFY_FORMATS.get(format_name, format_name)
        if title is not None:
            found[path.removeprefix(prefix)] = title
    return found


def _declared(checkpoint: Checkpoint) -> dict[str, dict[str, Any]]:
    text = checkpoint.metadata.get(QUANTIZATION_METADATA)
    if text is None:
        return {}
    layers = _parsed(QUANTIZATION_METADATA, text.encode()).get("layers")
    if not isinstance(layers, dict):
        raise FileError(f"{QUANTIZATION_METADATA}: expected JSON with layers; the file is damaged")
    return {path: entry for path, entry in cast(dict[str, Any], layers).items() if isinstance(entry, dict)}


def _parsed(key: str, text: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        raise FileError(f"{key}: expected a JSON object that names a format; the file is damaged")
    return cast(dict[str, Any], parsed)


def _read(checkpoint: Checkpoint, key: str) -> bytearray:
    info: TensorInfo = checkpoint.tensors[key]
    data = bytearray(info.bytes)
    checkpoint.holder[key].read_into(memoryview(data), key)
    return data
