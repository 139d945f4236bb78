"""float8: by itself, or times a scale: one number, one for each row, or one for each block of a row."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ..io.reader import TORCH_DTYPES
from ..scratch import scratch
from .form import Form, Found, RoleTensors, Unreadable
from .rounding import largest_of, round_to, round_within

__all__ = ["Float8", "ScaledFloat8"]

_SCALES = ("scale_weight", "weight_scale")
"""ComfyUI's older name, which is Musubi's too, and its newer."""


@dataclasses.dataclass(frozen=True)
class Float8(Form):
    """float8 numbers without a scale."""

    title = "float8"
    holds_nan = True

    @classmethod
    def of(cls, found: Found) -> Form:
        """This form, or the one with a scale; raises `Unreadable` if that does not fit."""
        names = [name for name in _SCALES if name in found.infos]
        if names:
            return ScaledFloat8.beside_it(found, names[0])
        if found.said:
            raise Unreadable("float8 whose weight_scale is missing")
        return cls(found, found.weight.shape)

    @property
    def beside(self) -> tuple[str, ...]:
        return ()

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the stored numbers."""
        return TORCH_DTYPES[self.found.weight.dtype]

    def decode(self, parts: RoleTensors) -> Tensor:
        return _widened(self._codes(parts), self.dtype)

    def encode(self, values: Tensor, parts: RoleTensors, generator: torch.Generator | None) -> dict[str, Tensor]:
        out = scratch("narrow", values.shape, self.dtype, values.device)
        return {"weight": round_to(values, self.dtype, generator, out)}

    def _codes(self, parts: RoleTensors) -> Tensor:
        return parts["weight"].view(torch.int8).view(-1, self.columns)


@dataclasses.dataclass(frozen=True)
class ScaledFloat8(Float8):
    """Numbers times a scale of shape () or (1,), (out,) or (out, 1), or (out, blocks, 1)."""

    role: str
    """The role of the scale."""

    title = "scaled float8"
    holds_nan = False
    shows_nan = True

    @classmethod
    def beside_it(cls, found: Found, role: str) -> ScaledFloat8:
        """The form with the scale of a role; raises `Unreadable` if the two do not fit."""
        scale, shape = found.infos[role], found.weight.shape
        rows, columns = shape[0], torch.Size(shape[1:]).numel()
        if scale.dtype in ("U8", "F8_E8M0"):
            raise Unreadable("MXFP8 that no comfy_quant describes")
        fits = (
            torch.Size(scale.shape).numel() == 1
            or scale.shape in ((rows,), (rows, 1))
            or (len(scale.shape) == 3 and scale.shape[::2] == (rows, 1) and columns % max(scale.shape[1], 1) == 0)
        )
        if not fits or scale.dtype not in ("F32", "F16", "BF16"):
            raise Unreadable(
                f"float8 with a {role} of {scale.dtype} {list(scale.shape)} for a weight of {list(shape)}, "
                "expected one number, one for each row, or one for each block of a row"
            )
        return cls(found, shape, role)

    @property
    def rescaled(self) -> tuple[str, ...]:
        return (self.role,) if torch.Size(self.found.infos[self.role].shape).numel() == 1 else ()

    @property
    def beside(self) -> tuple[str, ...]:
        return () if self.rescaled else (self.role,)

    def decode(self, parts: RoleTensors) -> Tensor:
        scale = self._scale(parts)
        if self.rescaled:
            return _widened(self._codes(parts), self.dtype, float(scale))
        values = super().decode(parts)
        self._groups(values).mul_(scale)
        return values

    def encode(self, values: Tensor, parts: RoleTensors, generator: torch.Generator | None) -> dict[str, Tensor]:
        made: dict[str, Tensor] = {}
        if not self.rescaled:
            made[self.role] = self._fresh(largest_of(self._groups(values), 2))
        self._groups(values).div_(self._scale({**parts, **made}))
        if TORCH_DTYPES[self.found.infos[self.role].dtype] != torch.float32:  # its scale may be a little too small
            limit = torch.finfo(self.dtype).max
            values.clamp_(-limit, limit)
        out = scratch("narrow", values.shape, self.dtype, values.device)
        return made | {"weight": round_within(values, out, generator)}

    def scale_of(self, peak: Tensor) -> dict[str, Tensor]:
        return {self.role: self._fresh(peak)}

    def _fresh(self, peak: Tensor) -> Tensor:
        """The scale in its own dtype that puts `peak` at the end of float8's range."""
        dtype = TORCH_DTYPES[self.found.infos[self.role].dtype]
        least = max(1e-8, torch.finfo(dtype).smallest_normal)  # below, float16 has few digits, and then 0
        return (peak / torch.finfo(self.dtype).max).clamp_(min=least).to(dtype)

    def _scale(self, parts: RoleTensors) -> Tensor:
        scale = parts[self.role].view(TORCH_DTYPES[self.found.infos[self.role].dtype]).to(torch.float32)
        return scale.reshape(1, 1, 1) if self.rescaled else scale.reshape(-1, self._blocks, 1)

    @property
    def _blocks(self) -> int:
        shape = self.found.infos[self.role].shape
        return shape[1] if len(shape) == 3 else 1

    def _groups(self, values: Tensor) -> Tensor:
        return values.view(values.shape[0], self._blocks, -1)


def _widened(codes: Tensor, dtype: torch.dtype, scale: float = 1.0) -> Tensor:
    """float8 numbers, given as their bits, times `scale` in float32, rounded once: seven times as fast as torch's own
    way to widen them, through float16's bits."""
    out = scratch("decoded", codes.shape, device=codes.device)
    bits = scratch("bits", codes.shape, torch.int16, codes.device).copy_(codes)
    if dtype == torch.float8_e5m2:  # the upper half of a float16
        return out.copy_(bits.bitwise_left_shift_(8).view(torch.float16)).mul_(scale)
    if 127 in (int(codes.amax()), int(codes.view(torch.uint8).amax()) - 128):  # NaN, which float16 has elsewhere
        return out.copy_(codes.view(dtype)).mul_(scale)
    # Sign, 4 bits of exponent, 3 of mantissa to sign, 5, 10: the sign's copies leave the exponent's first bit empty.
    return out.copy_(bits.bitwise_left_shift_(7).bitwise_and_(-0x4001).view(torch.float16)).mul_(256 * scale)
