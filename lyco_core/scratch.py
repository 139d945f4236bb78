"""Memory that a thread keeps for its intermediate results: fresh memory costs more than the arithmetic in it."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["scratch"]

_own = threading.local()


def scratch(
    use: str,
    shape: Sequence[int],
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    *,
    pinned: bool = False,
) -> Tensor:
    """An uninitialised tensor that holds until this thread asks again for the same `use`.

    Only uses of a few megabytes belong here: the memory is kept as long as the thread lives.
    """
    kind = torch.device(device)
    size = torch.Size(shape).numel() * dtype.itemsize
    buffers: dict[str, Tensor] = _own.__dict__
    buffer = buffers.get(use)
    if buffer is None or buffer.numel() < size or (buffer.device.type, buffer.is_pinned()) != (kind.type, pinned):
        with torch.inference_mode(False):  # ComfyUI's nodes run in it; the next user may not
            buffer = buffers[use] = torch.empty(size, dtype=torch.uint8, device=kind, pin_memory=pinned)
    return buffer[:size].view(dtype).view(*shape)
