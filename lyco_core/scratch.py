"""Memory that a thread keeps for intermediate results: on a CPU, fresh memory costs more than the arithmetic in it."""

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
    """An uninitialised tensor of `shape` that holds until this thread asks again for the same `use`.

    Of the CPU's memory, what is asked for is kept as long as the thread lives, so only uses of a few megabytes belong
    here. A device's own allocator keeps memory anyway, and lends it to others meanwhile: there it is a new tensor.
    `pinned` is for memory of the CPU that CUDA copies from.
    """
    if torch.device(device).type != "cpu":
        return torch.empty(tuple(shape), dtype=dtype, device=device)
    size = torch.Size(shape).numel() * dtype.itemsize
    buffers: dict[tuple[str, bool], Tensor] = _own.__dict__.setdefault("buffers", {})
    buffer = buffers.get((use, pinned))
    if buffer is None or buffer.numel() < size:
        with torch.inference_mode(False):  # ComfyUI's nodes run in it; the next user may not
            buffer = torch.empty(size, dtype=torch.uint8, pin_memory=pinned)
        buffers[use, pinned] = buffer
    return buffer[:size].view(dtype).view(*shape)
