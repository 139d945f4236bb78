"""What a device cannot do, and the processor does for it."""

from __future__ import annotations

import torch

__all__ = ["is_cuda", "knows"]

_EVERYWHERE = (torch.float32, torch.float16, torch.bfloat16)


def is_cuda(device: str) -> bool:
    """Whether memory can be pinned for it: CUDA's, and ROCm's, which goes by that name."""
    return torch.device(device).type == "cuda"


def knows(device: str, dtype: torch.dtype) -> bool:
    """Whether numbers of `dtype` can be there: Apple's devices and some of Intel's have no float64 and no float8."""
    return dtype in _EVERYWHERE or is_cuda(device) or device == "cpu"
