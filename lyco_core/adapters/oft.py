"""OFT (arXiv:2306.07280) and BOFT (arXiv:2311.06243) as LyCORIS has them: the weight's rows are rotated.

A block B makes the rotation R = (I + Q)(I - Q)⁻¹ with Q = B - Bᵀ, Cayley's transform.
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from typing import ClassVar, cast

import torch
from torch import Tensor

from ..devices import capable
from ..errors import AdapterError
from .base import ANY
from .factors import require_tensors
from .on_base import OnBase, along

__all__ = ["BOFT", "OFT"]


@dataclasses.dataclass(frozen=True, eq=False)
class _Rotation(OnBase):
    """What OFT and BOFT share: skew blocks, an optional scale for each row, alpha as the constraint of COFT.

    The constraint bounds the norm of all Q together by alpha * out.
    """

    tensor_names: ClassVar[tuple[str, ...]] = ("blocks", "rescale")

    blocks: Tensor
    rescale: Tensor | None = None

    def check(self) -> None:
        require_tensors({"oft_blocks": self.blocks}, self.title, "oft_blocks")
        shape = self.blocks.shape
        if self.blocks.dim() != self.dimensions or self.blocks.numel() == 0 or shape[-1] != shape[-2]:
            raise AdapterError(f"oft_blocks has shape {list(shape)}, expected square blocks; the file is damaged")
        if self.rescale is not None and self.rescale.numel() != self.shape[0]:
            raise AdapterError(f"rescale has shape {list(self.rescale.shape)}, expected {self.shape[0]} rows")

    dimensions: ClassVar[int]

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.blocks.shape[-3] * self.blocks.shape[-1], ANY)

    @property
    def rank(self) -> None:
        return None

    def turns(self, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
        """R - I of every block, exactly 2Q(I - Q)⁻¹, shaped as `blocks`."""
        skew = self.blocks.to(device, dtype)
        skew = skew - skew.transpose(-1, -2)
        if self.alpha is not None and self.alpha > 0:
            limit, norm = self.alpha * self.shape[0], float(skew.square().sum().sqrt())
            skew = skew * (limit / norm) if norm > limit else skew
        eye = torch.eye(skew.shape[-1], dtype=skew.dtype, device=skew.device)
        turns = cast(Tensor, torch.linalg.solve(capable(eye - skew), capable(2 * skew), left=False))
        return turns.to(device, dtype)

    def change(self, base: Tensor) -> Tensor:
        return self.turned(base.flatten(1), self.turns(base.device, base.dtype)).reshape(base.shape)

    def turned(self, flat: Tensor, turns: Tensor) -> Tensor:
        """(R - I) applied to (out, n), with the rows' scales: a new tensor. n: in·kernel, or tokens."""
        turned = self._rotated(flat, turns)
        if self.rescale is None:
            return turned
        factor = along(self.rescale.flatten(), 0, flat)
        return turned.mul_(factor).add_(flat * (factor - 1))

    @abstractmethod
    def _rotated(self, flat: Tensor, turns: Tensor) -> Tensor:
        """(R - I) applied to (out, in·kernel), a new tensor."""

    def rows(self, start: int, stop: int) -> OnBase | None:
        """The adapter itself for all rows, None for fewer: the rows of a block are rotated into each other."""
        return self if (start, stop) == (0, self.shape[0]) else None


@dataclasses.dataclass(frozen=True, eq=False)
class OFT(_Rotation):
    """blocks: (k, b, b) with k·b = out; rescale: (out, 1, …). Each block of b rows becomes Rᵀ times itself."""

    algorithm: ClassVar[str] = "oft"
    title: ClassVar[str] = "OFT"
    dimensions: ClassVar[int] = 3

    def rows(self, start: int, stop: int) -> OnBase | None:
        """That of whole blocks, where no norm of all of them bounds each; else as of any rotation."""
        size = self.blocks.shape[-1]
        if start % size or stop % size or start == stop or (self.alpha or 0) > 0:
            return super().rows(start, stop)
        rescale = None if self.rescale is None else self.rescale[start:stop]
        return dataclasses.replace(self, blocks=self.blocks[start // size : stop // size], rescale=rescale)

    def _rotated(self, flat: Tensor, turns: Tensor) -> Tensor:
        grouped = flat.reshape(turns.shape[0], turns.shape[1], -1)
        return (turns.transpose(1, 2) @ grouped).view(flat.shape)


@dataclasses.dataclass(frozen=True, eq=False)
class BOFT(_Rotation):
    """blocks: (m, k, b, b) with k·b = out: m rotations, one after the other, the i-th over rows 2ⁱ·b/2 apart."""

    algorithm: ClassVar[str] = "boft"
    title: ClassVar[str] = "BOFT"
    dimensions: ClassVar[int] = 4

    def check(self) -> None:
        super().check()
        steps, _, size, _ = self.blocks.shape
        rows = size << (min(steps, 64) - 1)  # which is more than any weight has
        if size % 2 or self.shape[0] % rows:
            raise AdapterError(
                f"oft_blocks has shape {list(self.blocks.shape)}: {steps} butterflies of blocks of {size} need an even "
                f"size and a multiple of {rows} rows; the file is damaged"
            )

    def _rotated(self, flat: Tensor, turns: Tensor) -> Tensor:
        size, rows = turns.shape[-1], torch.arange(flat.shape[0], device=flat.device)
        result = flat
        for step, turn in enumerate(turns):
            order = rows.view(-1, 2, (size // 2) << step).transpose(1, 2).flatten()
            grouped = result[order].view(-1, size, flat.shape[1])
            after = result.clone()
            after[order] = (grouped + turn @ grouped).view(flat.shape)
            result = after
        return result - flat
