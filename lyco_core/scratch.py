"""Memory of intermediate results: what a thread keeps of it, and what goes back to the system.

On a CPU, fresh memory costs more than the arithmetic in it.
"""

from __future__ import annotations

import ctypes
import functools
import sys
import threading
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = ["scratch", "trim"]

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


def trim() -> None:
    """Give free memory back to the system, for long work whose tensors come and go.

    glibc keeps what is free between small things that stay, and the next tensor often fits into none of it: memory
    grows with the work. Other allocators give large blocks back at once.
    """
    if (glibcs := _malloc_trim()) is not None:
        glibcs(0)


@functools.cache
def _malloc_trim() -> Callable[[int], int] | None:
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
