"""Forms that ComfyUI's own package, comfy-kitchen, reads and writes: NVFP4, MXFP8, ConvRot W4A4, W4A8.

It is there wherever ComfyUI is, and imported when a file has such a weight.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..io import TensorInfo
from ..io.reader import TORCH_DTYPES
from .form import Form, Found, Parts, Unreadable
from .rotation import require_groups

__all__ = ["W4A4", "W4A8", "Mxfp8", "Nvfp4", "find_kitchen", "in_torch"]

_TILE = 128
"""Scales of blocks lie in tiles of so many rows, as cuBLAS wants them."""
_FLOATS = ("F32", "F16", "BF16")
_INT4_GROUP = 64


@functools.cache
def find_kitchen() -> Any:  # noqa: ANN401 - a package without types
    """The package, or None where it is not installed."""
    try:
        return importlib.import_module("comfy_kitchen")
    except ImportError:
        return None


def in_torch() -> contextlib.AbstractContextManager[None]:
    """The package computes in plain torch: its CUDA kernels for NVFP4 and MXFP8 offer float32, and refuse it."""
    kitchen = find_kitchen()
    return contextlib.nullcontext() if kitchen is None else kitchen.use_backend("eager")


@dataclasses.dataclass(frozen=True)
class _Kitchens(Form):
    """A form that two functions of the package make numbers of, and make of numbers."""

    reads: ClassVar[str]
    writes: ClassVar[str]

    @property
    def unavailable(self) -> str | None:
        kitchen = find_kitchen()
        if kitchen is None:
            return "for which comfy-kitchen is needed: use the Python that ComfyUI runs on"
        if not hasattr(kitchen, self.reads) or not hasattr(kitchen, self.writes):
            return "which this comfy-kitchen does not know: update ComfyUI"
        return None

    def _numbers(self, *args: object, **more: object) -> Tensor:
        """What the package reads, without the columns that fill it up."""
        values: Tensor = getattr(find_kitchen(), self.reads)(*args, **more)
        return values if values.shape[1] == self.columns else values[:, : self.columns].contiguous()

    def _rounded(self, *args: object, **more: object) -> tuple[Tensor, ...]:
        return getattr(find_kitchen(), self.writes)(*args, **more)


@dataclasses.dataclass(frozen=True)
class _Tiled(_Kitchens):
    """A form whose blocks of a row have scales that lie in tiles, and whose rows and columns are filled up."""

    step = _TILE
    draws = False

    @property
    def beside(self) -> tuple[str, ...]:
        return ("weight_scale",)

    def height(self, role: str) -> int:
        rows = super().height("weight")
        return rows if role == "weight" else _up(rows, _TILE)

    def _rounded(self, *args: object, **more: object) -> tuple[Tensor, ...]:
        with in_torch():
            return super()._rounded(*args, **more)

    def require_tiles(self, columns: int) -> None:
        """Raise `Unreadable` unless there is a scale of one byte for each row and block of it, in whole tiles."""
        expected = _up(super().height("weight"), _TILE) * _up(columns, 4)
        if self.found.infos["weight_scale"].bytes != expected:
            have = list(self.found.infos["weight_scale"].shape)
            raise Unreadable(f"{self.title} with a weight_scale of {have}, expected {expected} numbers in tiles")

    def _scales(self, parts: Parts, dtype: torch.dtype) -> Tensor:
        flat = parts["weight_scale"].view(torch.uint8)
        return flat.reshape(-1, self.found.infos["weight_scale"].bytes // self.height("weight_scale")).view(dtype)


@dataclasses.dataclass(frozen=True)
class Mxfp8(_Tiled):
    """float8 in blocks of 32 columns under powers of 2."""

    title = "MXFP8"
    reads, writes = "dequantize_mxfp8", "quantize_mxfp8"

    @classmethod
    def of(cls, found: Found) -> Form:
        """The form of a weight; raises `Unreadable` if its tensors do not make it."""
        found.require(cls.title, {"weight": ("F8_E4M3",), "weight_scale": ("F8_E8M0", "U8")})
        rows, columns = found.weight.shape
        form = cls(found, (_unfilled(rows, found.infos.get("bias"), 32), columns))
        form.require_tiles(columns // 32)
        return form

    def decode(self, parts: Parts) -> Tensor:
        codes = parts["weight"].view(torch.float8_e4m3fn).view(-1, self.found.weight.shape[1])
        return self._numbers(codes, self._scales(parts, torch.float8_e8m0fnu), torch.float32)

    def encode(self, values: Tensor, parts: Parts, generator: torch.Generator | None) -> dict[str, Tensor]:
        codes, scales = self._rounded(values, pad_32x=True)
        return {"weight": codes, "weight_scale": scales}


@dataclasses.dataclass(frozen=True)
class Nvfp4(_Tiled):
    """4-bit floating point in blocks of 16 columns, under float8 scales, under one; the input may be scaled before."""

    title = "NVFP4"
    reads, writes = "dequantize_nvfp4", "quantize_nvfp4"

    @classmethod
    def of(cls, found: Found) -> Form:
        """The form of a weight; raises `Unreadable` if its tensors do not make it."""
        roles = {"weight": ("U8",), "weight_scale": ("F8_E4M3", "U8"), "weight_scale_2": ("F32",)}
        found.require(cls.title, roles)
        (rows, half), before = found.weight.shape, found.infos.get("pre_quant_scale")
        form = cls(found, (_unfilled(rows, found.infos.get("bias"), 16), _unfilled(2 * half, before, 16)))
        form.require_tiles(half // 8)
        if torch.Size(found.infos["weight_scale_2"].shape).numel() != 1:
            raise Unreadable("NVFP4 with a weight_scale_2 that is not one number")
        if before is not None and (torch.Size(before.shape).numel() != form.columns or before.dtype not in _FLOATS):
            raise Unreadable(f"NVFP4 with a pre_quant_scale of {before.dtype} {list(before.shape)}")
        return form

    @property
    def rescaled(self) -> tuple[str, ...]:
        return ("weight_scale_2",)

    @property
    def fixed(self) -> tuple[str, ...]:
        return (*self.rescaled, "pre_quant_scale") if self._before else self.rescaled

    @property
    def upright(self) -> bool:
        return not self._before

    @property
    def isometric(self) -> bool:
        return not self._before

    @property
    def _before(self) -> bool:
        return "pre_quant_scale" in self.found.infos

    def decode(self, parts: Parts) -> Tensor:
        codes = parts["weight"].view(-1, self.found.weight.shape[1])
        return self._numbers(codes, self._whole(parts), self._scales(parts, torch.float8_e4m3fn), torch.float32)

    def encode(self, values: Tensor, parts: Parts, generator: torch.Generator | None) -> dict[str, Tensor]:
        codes, scales = self._rounded(values, self._whole(parts), pad_16x=True)
        return {"weight": codes, "weight_scale": scales}

    def scale_of(self, peak: Tensor) -> dict[str, Tensor]:
        return {"weight_scale_2": (peak / (448 * 6)).clamp_(min=1e-30)}

    def turn(self, values: Tensor, parts: Parts) -> Tensor:
        return values.div_(self._by_column(parts)) if self._before else values

    def straighten(self, values: Tensor, parts: Parts) -> Tensor:
        return values.mul_(self._by_column(parts)) if self._before else values

    def _whole(self, parts: Parts) -> Tensor:
        return parts["weight_scale_2"].view(torch.float32).reshape(())

    def _by_column(self, parts: Parts) -> Tensor:
        """y = W (s · x) = (W diag(s)) x; a column that no input reaches takes what it is given."""
        dtype = TORCH_DTYPES[self.found.infos["pre_quant_scale"].dtype]
        scale = parts["pre_quant_scale"].view(dtype).to(torch.float32).reshape(1, -1)
        return scale.masked_fill(scale == 0, 1)


@dataclasses.dataclass(frozen=True)
class W4A4(_Kitchens):
    """4-bit integers of rotated columns under a scale for each row."""

    group: int
    title = "ConvRot W4A4"
    reads, writes = "dequantize_convrot_w4a4_weight", "quantize_convrot_w4a4_weight"

    @classmethod
    def of(cls, found: Found) -> Form:
        """The form of a weight; raises `Unreadable` if its tensors do not make it."""
        found.require(cls.title, {"weight": ("I8", "U8"), "weight_scale": ("F32",)})
        rows, half = found.weight.shape
        form = cls(found, (rows, 2 * half), found.number("convrot_groupsize", 256))
        require_groups(cls.title, form.columns, form.group)
        if torch.Size(found.infos["weight_scale"].shape).numel() != rows or form.columns % _INT4_GROUP:
            raise Unreadable(f"ConvRot W4A4 with a weight_scale of {list(found.infos['weight_scale'].shape)}")
        return form

    @property
    def beside(self) -> tuple[str, ...]:
        return ("weight_scale",)

    def decode(self, parts: Parts) -> Tensor:
        codes = parts["weight"].view(torch.int8).view(-1, self.columns // 2)
        scales = parts["weight_scale"].view(torch.float32).reshape(-1)
        return self._numbers(codes, scales, self.group, _INT4_GROUP, torch.float32)

    def encode(self, values: Tensor, parts: Parts, generator: torch.Generator | None) -> dict[str, Tensor]:
        codes, scales = self._rounded(values, self.group, _INT4_GROUP, stochastic_rounding=_seed(generator))
        return {"weight": codes, "weight_scale": scales}


@dataclasses.dataclass(frozen=True)
class W4A8(_Kitchens):
    """4-bit numbers of a table, of rotated columns, under a scale for each group and one for each row."""

    group_size: int
    rotation: int
    title = "W4A8"
    reads, writes = "dequantize_w4a8_int8_weight", "quantize_w4a8_int8_weight"

    @classmethod
    def of(cls, found: Found) -> Form:
        """The form of a weight; raises `Unreadable` if its tensors do not make it."""
        roles = {"weight": ("I8",), "weight_s_rel": ("F8_E4M3", "U8", "F32"), "weight_s_channel": ("F32",)}
        found.require(cls.title, roles)
        (rows, half), size = found.weight.shape, found.number("group_size", 16)
        form = cls(found, (rows, 2 * half), size, found.number("convrot_groupsize", 256))
        require_groups(cls.title, form.columns, form.rotation)
        if size < 4 or form.columns % size or form.columns % 16 or (16 % size and size % 16):
            raise Unreadable(f"W4A8 with a group_size of {size} for {form.columns} columns")
        expected = {"weight_s_rel": (rows, form.columns // size), "weight_s_channel": (rows,), "weight_codebook": (16,)}
        for role, shape in expected.items():
            if role in found.infos and found.infos[role].shape != shape:
                raise Unreadable(f"W4A8 with a {role} of {list(found.infos[role].shape)}, expected {list(shape)}")
        if "weight_correction" in found.infos:
            raise Unreadable("W4A8 with a weight_correction, which ComfyUI does not read")
        return form

    @property
    def fixed(self) -> tuple[str, ...]:
        return ("weight_codebook",) if "weight_codebook" in self.found.infos else ()

    @property
    def beside(self) -> tuple[str, ...]:
        return ("weight_s_rel", "weight_s_channel")

    def decode(self, parts: Parts) -> Tensor:
        codes = parts["weight"].view(torch.int8).view(-1, self.columns // 2)
        groups = parts["weight_s_rel"].view(self._scale_dtype).view(-1, self.columns // self.group_size)
        rows = parts["weight_s_channel"].view(torch.float32)
        table = self._table(parts)
        sizes = self.group_size, self.rotation
        return self._numbers(codes, groups, rows, table, None, *sizes, torch.float32)

    def encode(self, values: Tensor, parts: Parts, generator: torch.Generator | None) -> dict[str, Tensor]:
        table = self._table(parts)
        codes, groups, rows, _, _ = self._rounded(
            values,
            self.group_size,
            self.rotation,
            scale_dtype=self._scale_dtype,
            codebook=table is not None,
            codebook_tensor=table,
            stochastic_rounding=_seed(generator),
        )
        return {"weight": codes, "weight_s_rel": groups, "weight_s_channel": rows}

    @property
    def _scale_dtype(self) -> torch.dtype:
        return torch.float32 if self.found.infos["weight_s_rel"].dtype == "F32" else torch.float8_e4m3fn

    def _table(self, parts: Parts) -> Tensor | None:
        return parts["weight_codebook"].view(torch.float32) if self.fixed else None


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _unfilled(size: int, told_by: TensorInfo | None, multiple: int) -> int:
    """A side of a weight whose storage was filled up to a `multiple`, told by a vector as long as it."""
    length = size if told_by is None else torch.Size(told_by.shape).numel()
    return length if _up(length, multiple) == size else size


def _seed(generator: torch.Generator | None) -> int:
    return 0 if generator is None else generator.initial_seed() % 2**31 + 1
