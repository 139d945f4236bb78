"""MXFP8 and NVFP4: blocks of a row whose scales lie in tiles, by comfy-kitchen."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ..io import TensorInfo
from ..io.reader import TORCH_DTYPES
from .form import Form, Found, RoleTensors, Unreadable
from .kitchen import KitchenForm, in_torch

__all__ = ["Mxfp8", "Nvfp4", "tiles"]

_TILE = 128
"""Scales of blocks lie in tiles of so many rows, as cuBLAS wants them."""
_FLOATS = ("F32", "F16", "BF16")


@dataclasses.dataclass(frozen=True)
class _Tiled(KitchenForm):
    """A form whose blocks of a row have scales that lie in tiles, and whose rows and columns are filled up."""

    step = _TILE
    stochastic = False

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
        expected = torch.Size(tiles(super().height("weight"), columns)).numel()
        if self.found.infos["weight_scale"].bytes != expected:
            have = list(self.found.infos["weight_scale"].shape)
            raise Unreadable(f"{self.title} with a weight_scale of {have}, expected {expected} numbers in tiles")

    def _scales(self, parts: RoleTensors, dtype: torch.dtype) -> Tensor:
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

    def decode(self, parts: RoleTensors) -> Tensor:
        codes = parts["weight"].view(torch.float8_e4m3fn).view(-1, self.found.weight.shape[1])
        return self._numbers(codes, self._scales(parts, torch.float8_e8m0fnu), torch.float32)

    def encode(self, values: Tensor, parts: RoleTensors, generator: torch.Generator | None) -> dict[str, Tensor]:
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

    def decode(self, parts: RoleTensors) -> Tensor:
        codes = parts["weight"].view(-1, self.found.weight.shape[1])
        return self._numbers(codes, self._whole(parts), self._scales(parts, torch.float8_e4m3fn), torch.float32)

    def encode(self, values: Tensor, parts: RoleTensors, generator: torch.Generator | None) -> dict[str, Tensor]:
        codes, scales = self._rounded(values, self._whole(parts), pad_16x=True)
        return {"weight": codes, "weight_scale": scales}

    def scale_of(self, peak: Tensor) -> dict[str, Tensor]:
        return {"weight_scale_2": (peak / (448 * 6)).clamp_(min=1e-30)}

    def turn(self, values: Tensor, parts: RoleTensors) -> Tensor:
        return values.div_(self._by_column(parts)) if self._before else values

    def straighten(self, values: Tensor, parts: RoleTensors) -> Tensor:
        return values.mul_(self._by_column(parts)) if self._before else values

    def _whole(self, parts: RoleTensors) -> Tensor:
        return parts["weight_scale_2"].view(torch.float32).reshape(())

    def _by_column(self, parts: RoleTensors) -> Tensor:
        """y = W (s · x) = (W diag(s)) x; a column that no input reaches takes what it is given."""
        dtype = TORCH_DTYPES[self.found.infos["pre_quant_scale"].dtype]
        scale = parts["pre_quant_scale"].view(dtype).to(torch.float32).reshape(1, -1)
        return scale.masked_fill(scale == 0, 1)


def tiles(rows: int, blocks: int) -> tuple[int, int]:
    """The shape of the scales of so many rows and blocks of a row, filled up to whole tiles."""
    return _up(rows, _TILE), _up(blocks, 4)


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _unfilled(size: int, vector: TensorInfo | None, multiple: int) -> int:
    """A side of a weight whose storage was filled up to a `multiple`: the length of a vector that goes with it."""
    length = size if vector is None else torch.Size(vector.shape).numel()
    return length if _up(length, multiple) == size else size
