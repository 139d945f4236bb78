"""GGUF's blocks: Q8_0, which a change survives in, and those that are only read, by the gguf package."""

from __future__ import annotations

import dataclasses
import functools
import importlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..scratch import scratch
from .form import Form, Found, RoleTensors, Unreadable
from .rounding import largest_of, round_to_whole

__all__ = ["Q8", "Blocks", "package"]

_BLOCK, _BYTES = 32, 34
"""Weights of a Q8_0 block, and its bytes: a scale in float16, and integers of 8 bits."""


@dataclasses.dataclass(frozen=True)
class Q8(Form):
    """Integers in blocks of 32 columns under a scale each."""

    title = "GGUF Q8_0"

    @classmethod
    def of(cls, found: Found) -> Form:
        """The form of a weight; raises `Unreadable` if its rows are no whole blocks."""
        form = cls(found, found.weight.shape)
        if form.columns % _BLOCK:
            raise Unreadable(f"GGUF Q8_0 with rows of {form.columns} weights, which are no whole blocks")
        return form

    @property
    def beside(self) -> tuple[str, ...]:
        return ()

    def decode(self, parts: RoleTensors) -> Tensor:
        blocks = parts["weight"].view(-1, _BYTES)
        codes = blocks[:, 2:].view(torch.int8)
        values = scratch("decoded", codes.shape, device=codes.device).copy_(codes)
        scales = blocks[:, :2].contiguous().view(torch.float16)
        return values.mul_(scales.to(torch.float32)).view(-1, self.columns)

    def encode(self, values: Tensor, parts: RoleTensors, generator: torch.Generator | None) -> dict[str, Tensor]:
        groups = values.view(-1, _BLOCK)
        scales = largest_of(groups, 1).unsqueeze(1).div_(127)
        groups.div_(scales.clamp(min=torch.finfo(torch.float32).tiny))
        out = scratch("narrow", (groups.shape[0], _BYTES), torch.uint8, values.device)
        out[:, :2] = scales.to(torch.float16).view(torch.uint8)
        out[:, 2:] = round_to_whole(groups, generator).clamp_(-127, 127).to(torch.int8).view(torch.uint8)
        return {"weight": out}


@dataclasses.dataclass(frozen=True)
class Blocks(Form):
    """What the gguf package has a reader for."""

    title = "GGUF blocks"

    @property
    def name(self) -> str:
        return f"GGUF {self.found.weight.dtype}"

    @property
    def beside(self) -> tuple[str, ...]:
        return ()

    @property
    def unavailable(self) -> str | None:
        if package() is None:
            return "for which the gguf package is needed: pip install gguf"
        return None

    @property
    def unwritable(self) -> str | None:
        return "in which a change of half a percent vanishes (error above 1): choose bfloat16 as dtype"

    def decode(self, parts: RoleTensors) -> Tensor:
        gguf = package()
        rows = parts["weight"].cpu().numpy().reshape(-1, self.found.weight.bytes // self.rows)
        kind = getattr(gguf.GGMLQuantizationType, self.found.weight.dtype)
        values: Any = gguf.quants.dequantize(rows, kind)
        return torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(parts["weight"].device)

    def encode(self, values: Tensor, parts: RoleTensors, generator: torch.Generator | None) -> dict[str, Tensor]:
        raise NotImplementedError


@functools.cache
def package() -> Any:  # noqa: ANN401 - a package without types
    """The gguf package, an optional dependency of ours; None where it is not installed."""
    try:
        return importlib.import_module("gguf")
    except ImportError:
        return None
