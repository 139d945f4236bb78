"""Numbers that are none: what has one is refused, by its key."""

from __future__ import annotations

import torch
from torch import Tensor

from .errors import AdapterError

__all__ = ["check_finite"]


def check_finite(key: str, tensor: Tensor) -> None:
    """Raise `AdapterError` naming `key` if a number in `tensor` is NaN or infinite."""
    if bool(torch.isfinite(_sum(tensor))):
        return
    bad = int((~torch.isfinite(_numbers(tensor))).sum())
    if bad:
        raise AdapterError(
            f"{key}: {bad} of its {tensor.numel()} numbers are NaN or infinite; "
            "training diverged or the file is damaged, use an earlier save"
        )


def _sum(tensor: Tensor) -> Tensor:
    """The sum of all numbers: finite only if every term is, and much the faster test."""
    return _numbers(tensor).sum(dtype=torch.float32)


def _numbers(tensor: Tensor) -> Tensor:
    """The tensor in a dtype in which every device sums."""
    return tensor if tensor.element_size() in (2, 4) else tensor.to(torch.float32)
