"""How near what a device found is to what is exact, beside what the dtype's own rounding makes."""

from __future__ import annotations

import torch
from torch import Tensor

from gpu.results import Results

ARITHMETIC = 2e-5
"""What float32's own arithmetic may be off by, as a part of the largest number."""
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def named(dtype: torch.dtype) -> str:
    """`bfloat16`, say."""
    return str(dtype).removeprefix("torch.")


def relative(found: Tensor, exact: Tensor) -> float:
    """The relative error in the Euclidean norm."""
    return float((found.cpu().double() - exact).norm() / exact.norm())


def rounded_once(results: Results, section: str, case: str, found: Tensor, exact: Tensor) -> None:
    """Check that every number is what is exact, computed in float32 and rounded once to the dtype.

    Beyond half a unit in the last place lies only what float32's arithmetic is off by.
    """
    dtype, error = found.dtype, (found.detach().cpu().double() - exact).abs()
    info = torch.finfo(dtype)
    half_a_place = (info.eps / 2 * exact.abs()).clamp_min(info.smallest_normal * info.eps)
    beyond = float((error - half_a_place).max() / exact.abs().max())
    if error.isnan().any():
        beyond = float("nan")
    what = f"of the largest number beyond one rounding to {named(dtype)}"
    results.at_most(section, case, max(beyond, 0.0) if beyond == beyond else beyond, ARITHMETIC, what)


def identical(results: Results, section: str, case: str, found: Tensor, expected: Tensor) -> None:
    """Check that two tensors are the same, bit for bit."""
    same = torch.equal(found, expected)
    differ = 0 if same else int((found != expected).sum())
    results.holds(section, case, same, "the same numbers", f"{differ} of {found.numel()} differ")


def beside_noise(
    results: Results, section: str, case: str, error: float, noise: float, factor: float = 5, least: float = 1e-4
) -> None:
    """Check that an error is no more than `factor` of what the dtype's rounding, or a stored form, makes by itself."""
    results.at_most(section, case, error, factor * noise + least, f"relative error (noise {noise:.2g})")
