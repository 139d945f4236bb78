"""OFTv2, the input-centric OFT (arXiv:2506.19847), as PEFT, OneTrainer and AkaneTendo25's fork of Musubi have it:
blocks of the inputs are rotated before they meet the weight.

A block's numbers make a skew matrix Q, and Q the rotation R: the first terms of Cayley's transform as a series,
I + 2Q + 2Q² + … , of which the last counts once; or the transform itself, (I - Q)(I + Q)⁻¹, whose sign is the other.
"""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar, cast

import torch
from torch import Tensor

from ..devices import capable
from ..errors import AdapterError
from .base import ANY
from .dora import DoRA
from .factors import require_tensors
from .on_base import OnBase, along

__all__ = ["CAYLEY", "TERMS", "OFTv2", "rotation", "within"]

TERMS = 5
"""How many terms of the series trainers take, but for PEFT where a person says otherwise."""

CAYLEY = 0
"""Stands for the transform itself among numbers of terms."""


@dataclasses.dataclass(frozen=True, eq=False)
class OFTv2(OnBase):
    """vectors: (k, b(b - 1)/2), each the part above the diagonal of a (b, b) skew Q; k·b = in·kernel, or k = 1 for all.

    W' = W Rᵀ; of a convolution W' = W R, unless it is `of_peft`, which rotates those of one position alone as inputs.
    scaled: Q is divided by 2·sqrt(b - 1).
    magnitude, initial_norm: (out, 1): DoRA on it, whose norm is the weight's before training: each row grows by
    their quotient. inner: a DoRA on a LoKr, which changes the weight before its inputs are rotated.
    """

    algorithm: ClassVar[str] = "oftv2"
    tensor_names: ClassVar[tuple[str, ...]] = ("vectors", "magnitude", "initial_norm")

    vectors: Tensor
    magnitude: Tensor | None = None
    initial_norm: Tensor | None = None
    scaled: bool = False
    terms: int = TERMS
    of_peft: bool = False
    inner: DoRA | None = None

    def check(self) -> None:
        require_tensors({"oft_R.weight": self.vectors}, "OFTv2", "oft_R.weight")
        shape, size = list(self.vectors.shape), self.block_size
        if self.vectors.dim() != 2 or self.vectors.numel() == 0 or size * (size - 1) // 2 != shape[1]:
            raise AdapterError(f"oft_R.weight has shape {shape}, expected b(b - 1)/2 numbers a block")
        if (self.magnitude is None) != (self.initial_norm is None):
            both = {"dora_scale": self.magnitude, "initial_norm": self.initial_norm}
            require_tensors(both, "OFTv2 with DoRA", "dora_scale and initial_norm")
        if self.magnitude is not None and self.initial_norm is not None:
            rows = self.magnitude.numel(), self.initial_norm.numel()
            if not rows[0] or rows[0] != rows[1]:
                raise AdapterError(f"{rows[0]} magnitudes and {rows[1]} norms, expected one of each for a row")
        if self.inner is not None and not self._turns(self.inner.flat_shape[1]):
            raise AdapterError(
                f"oft_R.weight has shape {shape}, of blocks of {size}, beside factors of {self.inner.flat_shape[1]} "
                "inputs; the file is damaged"
            )

    @property
    def title(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """`OFTv2`, `OFTv2 with DoRA` or `LoKr with DoRA and OFTv2`."""
        if self.inner is not None:
            return f"{self.inner.title} and OFTv2"
        return "OFTv2" if self.magnitude is None else "OFTv2 with DoRA"

    @property
    def block_size(self) -> int:
        """b, from b(b - 1)/2."""
        return (1 + math.isqrt(1 + 8 * self.vectors.shape[-1])) // 2

    @property
    def shape(self) -> tuple[int, ...]:
        blocks = self.vectors.shape[0]
        rows = ANY if self.magnitude is None else self.magnitude.numel()
        if self.inner is not None:
            rows = self.inner.shape[0]
        return rows, ANY if blocks == 1 else blocks * self.block_size

    @property
    def rank(self) -> None:
        return None

    @property
    def tensors(self) -> dict[str, Tensor]:
        return {**({} if self.inner is None else self.inner.tensors), **super().tensors}

    @property
    def stored(self) -> dict[tuple[str, str], Tensor]:
        named = {("oftv2", "vectors"): self.vectors}
        if self.scaled:
            named["oftv2", "scaled"] = torch.tensor(True)
        named |= {("oftv2", name): tensor for name, tensor in super().tensors.items()}
        return {**({} if self.inner is None else self.inner.stored), **named}

    def with_tensors(self, tensors: dict[str, Tensor]) -> OFTv2:
        if self.inner is None:
            return dataclasses.replace(self, **tensors)
        inner = {name: tensor for name, tensor in tensors.items() if name in self.inner.tensors}
        own = {name: tensor for name, tensor in tensors.items() if name not in inner}
        return dataclasses.replace(self, **own, inner=self.inner.with_tensors(inner))

    def require_fit(self, weight: Tensor) -> None:
        """`Adapter.require_fit`, which here asks for whole blocks of inputs, and with DoRA for a linear weight."""
        super().require_fit(weight)
        width = math.prod(weight.shape[1:])
        if not self._turns(width):
            raise AdapterError(
                f"the adapter changes a weight of blocks of {self.block_size} inputs, this one is {list(weight.shape)}"
            )
        kernel = self.of_peft and math.prod(weight.shape[2:]) > 1
        if kernel or (weight.dim() > 2 and self.shape[0] != ANY):
            raise AdapterError(
                f"the adapter changes a weight of two dimensions, this one is {list(weight.shape)}: what {self.title} "
                "does to a kernel is not known"
            )

    def _turns(self, width: int) -> bool:
        blocks = self.vectors.shape[0]
        return width % self.block_size == 0 if blocks == 1 else width == blocks * self.block_size

    def turns(self, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
        """R - I of every block, (k, b, b)."""
        size = self.block_size
        vectors = self.vectors.to(device, dtype)
        if self.scaled:
            vectors = vectors / (2 * math.sqrt(size - 1))
        above = torch.triu_indices(size, size, 1, device=device)
        skew = vectors.new_zeros(vectors.shape[0], size, size)
        skew[:, above[0], above[1]] = vectors
        skew = skew - skew.transpose(1, 2)
        if self.terms == CAYLEY:
            eye = torch.eye(size, dtype=dtype, device=device)
            solved = cast(Tensor, torch.linalg.solve(capable(eye + skew), capable(-2 * skew), left=False))
            return solved.to(device, dtype)
        return _series(skew, self.terms)

    def gain(self, like: Tensor) -> Tensor | None:
        """magnitude / initial_norm of each row, in `like`'s dtype on its device; None without DoRA of its own."""
        if self.magnitude is None or self.initial_norm is None:
            return None
        return self.magnitude.to(like).flatten() / self.initial_norm.to(like).flatten()

    def change(self, base: Tensor) -> Tensor:
        turns = self.turns(base.device, base.dtype)
        # x R before W is W Rᵀ.
        turns = turns if base.dim() > 2 and not self.of_peft else turns.transpose(1, 2)
        if self.inner is None:
            change = rotation(base.flatten(1), turns)
        else:
            inner = self.inner.change(base)
            change = inner.add_(rotation(base + inner, turns))
        gain = self.gain(base)
        if gain is not None:
            factor = along(gain, 0, base.flatten(1))
            change.mul_(factor).add_(base.flatten(1) * (factor - 1))
        return change.reshape(base.shape)

    def rows(self, start: int, stop: int) -> OFTv2 | None:
        if (start, stop) == (0, self.shape[0]):
            return self
        inner = None if self.inner is None else self.inner.rows(start, stop)
        if (self.inner is None) != (inner is None):
            return None
        cut = {name: t.flatten()[start:stop].unsqueeze(1) for name, t in super().tensors.items() if name != "vectors"}
        return dataclasses.replace(self, **cut, inner=inner)


def rotation(x: Tensor, turns: Tensor) -> Tensor:
    """x (R - I), blocks of x's last dimension each by its own: what the rotation adds to x."""
    blocks = x.reshape(*x.shape[:-1], -1, turns.shape[-1])
    return torch.einsum("...kb,kbc->...kc", blocks, turns.expand(blocks.shape[-2], -1, -1)).reshape(x.shape)


def _series(skew: Tensor, terms: int) -> Tensor:
    """2Q + 2Q² + … , the last term once, as PEFT sums it: of three terms the powers are those of four."""
    if terms <= 1:
        return torch.zeros_like(skew)
    result = 2 * skew
    if terms == 2:
        return result
    power = skew @ skew
    result.add_(power, alpha=2)
    for _ in range(3, terms - 1):
        power = power @ skew
        result.add_(power, alpha=2)
    return result.add_(power @ skew)


def within(vectors: Tensor, limit: float) -> Tensor:
    """COFT: each block's Q brought to a norm of at most limit / sqrt(blocks), in float32 where one is beyond it."""
    if vectors.is_meta:
        return vectors
    most = limit / math.sqrt(vectors.shape[0])
    wide = vectors.to(torch.float32)
    norms = (2 * wide.square().sum(dim=1, keepdim=True)).sqrt()  # of the whole skew matrix
    return wide * (most / norms).clamp(max=1) if bool((norms > most).any()) else vectors
