"""Bands of W + ΔW, W frozen.

In half precision the sum is rounded stochastically: to the nearest, a ΔW of less than half of W's precision would be
lost. So its mean is W + ΔW.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ...fused import cut_bits
from ...scratch import scratch

__all__ = ["Base"]


@dataclasses.dataclass(frozen=True)
class Base:
    """A frozen weight, and what a sum with it is rounded by."""

    weight: Tensor
    """(out, in)."""
    noise: Tensor | None
    """(out + 1, in), int32, a view of out + in numbers; None where nothing is rounded."""

    @classmethod
    def of(cls, weight: Tensor, seed: int) -> Base:
        """`seed`: of the rounding; the same one rounds alike."""
        if not cut_bits(weight.dtype):
            return cls(weight, None)
        generator = torch.Generator(weight.device).manual_seed(seed)
        most, count, device = 1 << cut_bits(weight.dtype), sum(weight.shape), weight.device
        drawn = torch.randint(most, (count,), generator=generator, dtype=torch.int32, device=device)
        # No number comes twice in a row or a column, so that an output, and the gradient of an input, err as if every
        # number of the weight had one of its own.
        return cls(weight, drawn.unfold(0, weight.shape[1], 1))

    def rows(self, band: slice) -> tuple[Tensor, Tensor | None]:
        """Those rows of the weight, and of the noise."""
        return self.weight[band], None if self.noise is None else self.noise[band]

    def plus(self, band: slice, first: Tensor, second: Tensor, out: Tensor) -> Tensor:
        """`out = weight[band] + first * second`; `out` may be either of them."""
        if self.noise is None:
            return torch.addcmul(self.weight[band], first, second, out=out)
        total = scratch("sum", first.shape, torch.float32, first.device)
        total.copy_(torch.mul(first, second, out=out)).add_(self.weight[band])
        # A number whose magnitude grows by less than what is cut off goes to the upper of its two neighbours with the
        # odds of its distance to the lower.
        total.view(torch.int32).add_(self.noise[band]).bitwise_and_(-1 << cut_bits(out.dtype))
        return out.copy_(total)
