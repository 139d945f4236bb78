"""From float32 to the dtype that is stored: to the nearest, or stochastically."""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor

from ..errors import MergeError, Remedy

__all__ = ["generator_for", "largest", "largest_of", "round_to", "round_to_whole", "round_within"]

_BITS = {1: torch.uint8, 2: torch.int16}


def round_to(
    values: Tensor, dtype: torch.dtype, generator: torch.Generator | None = None, out: Tensor | None = None
) -> Tensor:
    """`values` (float32 or wider) in `dtype`: ties to even, or up and down with the odds that make the mean exact.

    Args:
        generator: of the random numbers for the latter.
        out: a tensor of that shape and dtype to put them in.

    Raises:
        MergeError: a finite number is larger than `dtype` can hold.
    """
    if dtype.itemsize >= 4:
        return values.to(dtype)
    if dtype != torch.bfloat16:  # whose range is float32's
        limit, peak = torch.finfo(dtype).max, largest(values)
        if not math.isfinite(peak):  # what the base has of NaN and infinity stays; the rest is still to fit
            peak = largest(values[torch.isfinite(values)])
        if peak > limit:
            name = str(dtype).removeprefix("torch.")
            raise MergeError(f"the result reaches {peak:g}, {name} ends at {limit:g}", Remedy.WIDER_DTYPE)
    return round_within(values, values.new_empty(values.shape, dtype=dtype) if out is None else out, generator)


def round_within(values: Tensor, out: Tensor, generator: torch.Generator | None) -> Tensor:
    """`values`, which are in the range of `out`'s dtype, rounded into `out` as `round_to` does."""
    nearest = out.copy_(values)
    return nearest if generator is None else _stochastic(values, nearest, generator)


def round_to_whole(values: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """`values` rounded in place to whole numbers, as `round_to` does."""
    if generator is None:
        return values.round_()
    return values.add_(torch.rand(values.shape, generator=generator, device=values.device)).floor_()


def largest(values: Tensor) -> float:
    """The largest magnitude; NaN if there is one."""
    if values.numel() == 0:
        return 0.0
    low, high = torch.aminmax(values)
    return max(-float(low), float(high))


def largest_of(values: Tensor, dim: int) -> Tensor:
    """The largest magnitudes along a dimension, in half the time of `abs`."""
    return torch.maximum(values.amax(dim), values.amin(dim).neg_())


def _stochastic(values: Tensor, nearest: Tensor, generator: torch.Generator) -> Tensor:
    """One of the two neighbours of each value: the upper with the odds of its distance to the lower.

    Floating-point numbers of one sign follow each other as their bits do, subnormal ones too.
    """
    integers = _BITS[nearest.element_size()]
    bits = nearest.view(integers)
    magnitudes = values.abs()
    lower_bits = bits - (nearest.to(values.dtype).abs() > magnitudes).to(integers)
    lower = lower_bits.view(nearest.dtype).to(values.dtype).abs()
    step = (lower_bits + 1).view(nearest.dtype).to(values.dtype).abs() - lower
    odds = (magnitudes - lower) / step
    draws = torch.rand(values.shape, generator=generator, device=values.device, dtype=values.dtype)
    up = (draws < odds) & torch.isfinite(step)
    return (lower_bits + up.to(integers)).view(nearest.dtype)


def generator_for(seed: int | None, key: str, start: int, device: str) -> torch.Generator | None:
    """The random numbers of one band: the same whichever thread gets it, and in whatever order."""
    if seed is None:
        return None
    digest = hashlib.sha256(f"{seed}:{start}:{key}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "little", signed=True))
