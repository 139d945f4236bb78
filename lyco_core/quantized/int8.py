"""ComfyUI's `int8_tensorwise`: integers under one scale or one for each row, of columns as they are or rotated."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ..io.reader import TORCH_DTYPES
from ..scratch import scratch
from .form import Form, Found, RoleTensors, Unreadable
from .rotation import require_groups, rotated
from .rounding import largest_of, round_to_whole

__all__ = ["Int8"]


@dataclasses.dataclass(frozen=True)
class Int8(Form):
    """W = scale · q, or scale · q · R."""

    group: int
    """Columns that are rotated together; 0 where none are."""

    title = "INT8"
    shows_nan = True

    @classmethod
    def of(cls, found: Found) -> Form:
        """The form of a weight; raises `Unreadable` if its tensors do not make it."""
        found.require(cls.title, {"weight": ("I8",), "weight_scale": ("F32", "F16", "BF16")})
        (rows, columns), scale = found.weight.shape, found.infos["weight_scale"].shape
        if torch.Size(scale).numel() != 1 and scale not in ((rows,), (rows, 1)):
            raise Unreadable(f"INT8 with a weight_scale of {list(scale)}, expected one number, or one for each row")
        group = found.number("convrot_groupsize", 256) if found.flag("convrot") else 0
        if group:
            require_groups(cls.title, columns, group)
        return cls(found, (rows, columns), group)

    @property
    def rescaled(self) -> tuple[str, ...]:
        return ("weight_scale",) if torch.Size(self.found.infos["weight_scale"].shape).numel() == 1 else ()

    @property
    def beside(self) -> tuple[str, ...]:
        return () if self.rescaled else ("weight_scale",)

    def decode(self, parts: RoleTensors) -> Tensor:
        codes = parts["weight"].view(torch.int8).view(-1, self.columns)
        return scratch("decoded", codes.shape, device=codes.device).copy_(codes).mul_(self._scale(parts))

    def encode(self, values: Tensor, parts: RoleTensors, generator: torch.Generator | None) -> dict[str, Tensor]:
        made = {} if self.rescaled else self.scale_of(largest_of(values, 1).unsqueeze(1))
        values.div_(self._scale({**parts, **made}))
        codes = round_to_whole(values, generator)
        if self._scale_dtype != torch.float32 or generator is not None:  # else the largest rounds to 127
            codes.clamp_(-128, 127)
        return made | {"weight": scratch("narrow", values.shape, torch.int8, values.device).copy_(codes)}

    def scale_of(self, peak: Tensor) -> dict[str, Tensor]:
        least = max(1e-30, torch.finfo(self._scale_dtype).tiny)
        return {"weight_scale": (peak / 127).clamp_(min=least).to(self._scale_dtype)}

    @property
    def upright(self) -> bool:
        return not self.group

    def turn(self, values: Tensor, parts: RoleTensors) -> Tensor:
        return rotated(values, self.group) if self.group else values

    def straighten(self, values: Tensor, parts: RoleTensors) -> Tensor:
        return self.turn(values, parts)

    @property
    def _scale_dtype(self) -> torch.dtype:
        return TORCH_DTYPES[self.found.infos["weight_scale"].dtype]

    def _scale(self, parts: RoleTensors) -> Tensor:
        return parts["weight_scale"].view(self._scale_dtype).to(torch.float32).reshape(-1, 1)
