"""ConvRot W4A4 and W4A8: weights of four bits, of rotated columns, by comfy-kitchen."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from .form import Form, Found, RoleTensors, Unreadable
from .kitchen import KitchenForm
from .rotation import require_groups

__all__ = ["W4A4", "W4A8", "NewW4A8"]

_INT4_GROUP = 64
_AT_ONCE = 2**18
"""How many numbers comfy-kitchen is given at a time: what it keeps besides is twenty times as large."""
_SEEN = 2**19
"""How many numbers of a weight it chooses a table by: it would take eight times as many, which changes its table only
where the weight has tails that are heavier than any model's."""


@dataclasses.dataclass(frozen=True)
class W4A4(KitchenForm):
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

    def decode(self, parts: RoleTensors) -> Tensor:
        codes = parts["weight"].view(torch.int8).view(-1, self.columns // 2)
        scales = parts["weight_scale"].view(torch.float32).reshape(-1)
        return self._numbers(codes, scales, self.group, _INT4_GROUP, torch.float32)

    def encode(self, values: Tensor, parts: RoleTensors, generator: torch.Generator | None) -> dict[str, Tensor]:
        codes, scales = self._rounded(values, self.group, _INT4_GROUP, stochastic_rounding=_seed(generator))
        return {"weight": codes, "weight_scale": scales}


@dataclasses.dataclass(frozen=True)
class W4A8(KitchenForm):
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

    def decode(self, parts: RoleTensors) -> Tensor:
        codes = parts["weight"].view(torch.int8).view(-1, self.columns // 2)
        groups = parts["weight_s_rel"].view(self._scale_dtype).view(-1, self.columns // self.group_size)
        rows = parts["weight_s_channel"].view(torch.float32)
        table = self._table(parts)
        sizes = self.group_size, self.rotation
        return self._numbers(codes, groups, rows, table, None, *sizes, torch.float32)

    def encode(self, values: Tensor, parts: RoleTensors, generator: torch.Generator | None) -> dict[str, Tensor]:
        table = self._table(parts)
        made: list[tuple[Tensor, ...]] = [
            self._rounded(
                rows,
                self.group_size,
                self.rotation,
                scale_dtype=self._scale_dtype,
                codebook=table is not None,
                codebook_tensor=table,
                stochastic_rounding=_seed(generator, number),
            )[:3]
            for number, rows in enumerate(_split(values, max(1, _AT_ONCE // self.columns)))
        ]
        codes, groups, channels = (torch.cat(parts) for parts in zip(*made, strict=True))
        return {"weight": codes, "weight_s_rel": groups, "weight_s_channel": channels}

    @property
    def _scale_dtype(self) -> torch.dtype:
        return torch.float32 if self.found.infos["weight_s_rel"].dtype == "F32" else torch.float8_e4m3fn

    def _table(self, parts: RoleTensors) -> Tensor | None:
        return parts["weight_codebook"].view(torch.float32) if self.fixed else None


@dataclasses.dataclass(frozen=True)
class NewW4A8(W4A8):
    """W4A8 of a weight that has no table yet: comfy-kitchen chooses one for the whole of it, from some of its rows."""

    @property
    def rescaled(self) -> tuple[str, ...]:
        return ("weight_codebook",)

    @property
    def sample(self) -> Tensor:
        most = max(1, _SEEN // self.columns)
        return torch.arange(self.rows) if self.rows <= most else torch.linspace(0, self.rows - 1, most).long()

    def table_of(self, rows: Tensor) -> dict[str, Tensor]:
        return {"weight_codebook": self._rounded(rows, self.group_size, self.rotation)[4]}


def _split(values: Tensor, rows: int) -> list[Tensor]:
    return [values[start : start + rows] for start in range(0, values.shape[0], rows)]


def _seed(generator: torch.Generator | None, number: int = 0) -> int:
    return 0 if generator is None else (generator.initial_seed() + number) % 2**31 + 1
