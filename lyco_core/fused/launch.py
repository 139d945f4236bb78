"""Whether the kernel can be had for what is asked, and its launch."""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
from collections.abc import Sequence
from types import ModuleType

import torch
from torch import Tensor, nn

__all__ = ["Half", "combine", "cut_bits", "ready"]

logger = logging.getLogger("lyco")

SWITCH = "LYCO_TRITON"
"""The environment's variable that is 1 where kernels are wanted; unasked, none: no card has shown them yet."""

DEVICES = {"cuda"}
"""Types of the devices that are tried; ROCm's go by that name too."""

_LEAST = (8, 0)
"""NVIDIA's generation from which on Triton multiplies bfloat16; AMD's numbers are all higher."""

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)

_TILE = (64, 128)
"""Rows and columns that one program makes: two halves of them fit a multiprocessor's registers."""

_MOST_WIDE = 32
"""Inner dimensions, together, up to which the kernel makes float32's products. No tensor core does, and torch's own are
tuned; modelled on an H100, where from here on arithmetic and not memory is what takes the time."""


@dataclasses.dataclass(frozen=True)
class Half:
    """A matrix whose elements are those of ΔW, or what they are multiplied with: `a @ b`, or `a` where b is None.

    Element (i, j) of ΔW takes (i // row_each, j // column_each) of it, modulo its shape.
    """

    a: Tensor
    b: Tensor | None = None
    row_each: int = 1
    column_each: int = 1

    @property
    def tensors(self) -> Sequence[Tensor]:
        """a, and b if it is there."""
        return (self.a,) if self.b is None else (self.a, self.b)

    @property
    def wide(self) -> int:
        """How many float32 products each of its elements takes."""
        return 0 if self.b is None or self.a.dtype == self.b.dtype != torch.float32 else self.b.shape[0]

    def arguments(self) -> tuple[Tensor | int | None, ...]:
        """As the kernel takes them."""
        last = self.a if self.b is None else self.b
        inner = (0, 0, 0) if self.b is None else (self.b.shape[0], self.a.stride(1), self.b.stride(0))
        rank, of_a, of_b = inner
        strides = (self.a.stride(0), of_a, of_b, last.stride(1))
        return (self.a, self.b, rank, *strides, self.a.shape[0], last.shape[1], self.row_each, self.column_each)


_NONE = (None, None, *[0] * 5, *[1] * 4)
"""The arguments of a half that is not there."""


def ready(device: torch.device) -> bool:
    """Whether kernels are tried there."""
    return device.type in DEVICES and _Broken.why is None and _kernels(device) is not None


def combine(
    out: Tensor,
    base: Tensor | None,
    halves: Sequence[Half],
    factor: float = 1.0,
    noise: Tensor | None = None,
    *,
    times: bool = False,
) -> bool:
    """`out = base + factor * ΔW`, or `base * factor * ΔW`; False, and nothing done, where torch has to do it.

    ΔW is one half, or two multiplied element by element. All is summed in float32, and rounded to the nearest once.

    Args:
        out: (rows, columns), float32, bfloat16 or float16.
        base: the same shape, or the same tensor; None for zeros.
        noise: (rows, columns) of whose elements (i, j) is `noise[0, 0]`'s neighbour i + j places on, int32: those
            bits of float32 are rounded by that `out`'s dtype lacks, see `train/trainable/sums.py`.
        times: multiply instead of adding.
    """
    given = [out, *(() if base is None else (base,)), *(tensor for half in halves for tensor in half.tensors)]
    if not (ready(out.device) and all(_takes(tensor, out.device) for tensor in given)):
        return False
    wide = sum(half.wide for half in halves)
    # A single product that is added to float32 is torch's own one kernel already.
    as_by_torch = wide > 0 and len(halves) == 1 and out.dtype == torch.float32 and base is not None and not times
    if wide > _MOST_WIDE or as_by_torch:
        return False
    if any(tensor.stride(1) != 1 for tensor in (out, base) if tensor is not None):
        return False
    return _launch(out, base, halves, factor, noise, times)


def _takes(tensor: Tensor, device: torch.device) -> bool:
    """Whether the kernel reads and writes such a tensor: plain numbers, of which autograd keeps no account."""
    plain = type(tensor) in (Tensor, nn.Parameter) and tensor.dtype in _DTYPES and tensor.device == device
    return plain and not (tensor.requires_grad and torch.is_grad_enabled())


def _launch(
    out: Tensor, base: Tensor | None, halves: Sequence[Half], factor: float, noise: Tensor | None, times: bool
) -> bool:
    kernels = _kernels(out.device)
    assert kernels is not None
    (rows, columns), (height, width) = out.shape, _TILE
    first, second = (*(half.arguments() for half in halves), _NONE)[:2]
    wide = any(half.wide for half in halves)
    rank = max(0 if half.b is None else half.b.shape[0] for half in halves)
    try:
        with torch.cuda.device_of(out):
            kernels.combined[(-(-rows // height) * -(-columns // width),)](
                out, base, noise, float(factor), rows, columns, out.stride(0), 0 if base is None else base.stride(0),
                *first, *second,
                TIMES=times, CUT=cut_bits(out.dtype), HEIGHT=height, WIDTH=width,
                STEP=16 if wide or rank <= 16 else 32, num_warps=8,
            )  # fmt: skip
    except Exception as error:  # of a compiler, a driver, a system without one: nothing has run, and torch can do it
        _Broken.tell(error)
        return False
    return True


def cut_bits(dtype: torch.dtype) -> int:
    """How many of float32's bits a number of `dtype` lacks."""
    return {torch.bfloat16: 16, torch.float16: 13}.get(dtype, 0)


class _Broken:
    """What a kernel failed with, once one has."""

    why: Exception | None = None

    @classmethod
    def tell(cls, error: Exception) -> None:
        if cls.why is None:
            cls.why = error
            reason = next(iter(str(error).splitlines()), "")
            logger.warning(
                f"Triton's kernels fail here ({type(error).__name__}: {reason}); torch's are used, with the same "
                f"results; without {SWITCH}=1 in the environment this is not tried"
            )


@functools.cache
def _kernels(device: torch.device) -> ModuleType | None:
    """The module of kernels; None where they are not wanted, or cannot be had."""
    if os.environ.get(SWITCH) != "1":
        return None
    if device.type == "cuda" and not (torch.cuda.is_available() and torch.cuda.get_device_capability(device) >= _LEAST):
        return None
    try:
        from . import kernels
    except ImportError:
        name = "triton-windows" if os.name == "nt" else "triton"
        logger.warning(f"{SWITCH}=1, but Triton is not there: install {name}; until then torch's are used")
        return None
    except Exception as error:
        _Broken.tell(error)
        return None
    return kernels
