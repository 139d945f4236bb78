"""What torch has on every device only in name: products into a view, float64, float8, factorizations."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["COMPLETE", "add_product_", "capable", "free_bytes", "is_cuda", "knows", "norm", "product_into"]

_AT_ONCE = 2**22
"""How many numbers are in float64 at a time: all of a matrix there would take twice what it takes itself."""

COMPLETE = frozenset({"cpu", "cuda"})
"""Device types that have all of it. MPS has no float64, and before torch 2.14 what a matrix product is told to write
into a part of a tensor is lost without a word."""


def product_into(out: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """`out = a @ b`, also where `out` is a part of a tensor."""
    return torch.mm(a, b, out=out) if out.device.type in COMPLETE else out.copy_(a @ b)


def add_product_(out: Tensor, a: Tensor, b: Tensor, factor: float = 1.0) -> Tensor:
    """`out += factor * (a @ b)`, also where `out` is a part of a tensor."""
    return out.addmm_(a, b, alpha=factor) if out.device.type in COMPLETE else out.add_(a @ b, alpha=factor)


def capable(tensor: Tensor) -> Tensor:
    """The tensor where float64 and factorizations are: itself, or its numbers on the CPU."""
    return tensor if tensor.device.type in COMPLETE else tensor.cpu()


def norm(tensor: Tensor) -> float:
    """Frobenius norm, summed in float64."""
    flat = capable(tensor).flatten()
    squares = [flat[n : n + _AT_ONCE].double().square_().sum() for n in range(0, flat.numel(), _AT_ONCE)]
    return float(torch.stack(squares).sum().sqrt()) if squares else 0.0


_EVERYWHERE = (torch.float32, torch.float16, torch.bfloat16)


def is_cuda(device: str) -> bool:
    """Whether memory can be pinned for it: CUDA's, and ROCm's, which goes by that name."""
    return torch.device(device).type == "cuda"


def knows(device: str, dtype: torch.dtype) -> bool:
    """Whether numbers of `dtype` can be there: Apple's devices and some of Intel's have no float64 and no float8."""
    return dtype in _EVERYWHERE or is_cuda(device) or device == "cpu"


def free_bytes(device: str | torch.device) -> int | None:
    """What can still be allocated there; None where nobody tells."""
    if not is_cuda(str(device)):
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
