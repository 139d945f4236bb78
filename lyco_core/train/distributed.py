"""The processes of one training: each has part of every batch, and all have the same network."""

from __future__ import annotations

import contextlib
import datetime
import importlib
import os
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import TrainError

__all__ = ["World", "accelerator", "join", "leave"]


class World:
    """All processes of a training, seen from one of them."""

    def __init__(self, rank: int = 0, processes: int = 1) -> None:
        self.rank, self.processes = rank, processes

    @property
    def writes(self) -> bool:
        """Whether this process is the one that saves and reports."""
        return self.rank == 0

    def add_up(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors of one dtype by their sums over all processes, in one exchange."""
        tensors = list(tensors)
        if self.processes == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        start = 0
        for tensor in tensors:
            tensor.copy_(flat[start : start + tensor.numel()].view_as(tensor))
            start += tensor.numel()

    def any(self, value: bool) -> bool:
        """Whether `value` is true in at least one process."""
        if self.processes == 1:
            return value
        flag = torch.tensor([float(value)], device="cuda" if dist.get_backend() == "nccl" else "cpu")
        dist.all_reduce(flag)
        return bool(flag)

    def wait(self) -> None:
        """Return once every process has come here."""
        if self.processes > 1:
            dist.barrier()


_ADDED = {"npu": "torch_npu", "mlu": "torch_mlu"}
"""What torch calls an accelerator -> the package that adds it to torch."""


def accelerator() -> str | None:
    """torch's name of the accelerator of this machine, such as `cuda`; None if it has only a CPU."""
    for package in _ADDED.values():
        with contextlib.suppress(ImportError):
            importlib.import_module(package)
    if torch.backends.mps.is_available():
        return "mps"
    modules = {name: getattr(torch, name, None) for name in ("cuda", "xpu", *_ADDED)}
    return next((name for name, module in modules.items() if module is not None and module.is_available()), None)


def join(backend: str | None = None) -> World:
    """Join the processes that `torchrun` started; without it this one is alone.

    Args:
        backend: torch's name for it; None: nccl where torch has it and GPUs, else gloo (Windows has no nccl).

    Raises:
        TrainError: there is an accelerator over which neither works.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return World()
    found = accelerator()
    if found not in ("cuda", None):
        raise TrainError(f"several processes train on CUDA's GPUs or on the CPU, and here is {found}: start it alone")
    if found:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    # While one process encodes or samples the others wait, for longer than torch does by itself; torchrun ends all if
    # one dies.
    timeout = datetime.timedelta(days=7)
    # Imported after it began, as ComfyUI's packages do, this holds the group as its functions' default: its threads
    # outlive `leave`, and one that is late to drop a tensor while Python ends aborts the process.
    importlib.import_module("torch.distributed.nn.functional")
    dist.init_process_group(backend or ("nccl" if found and dist.is_nccl_available() else "gloo"), timeout=timeout)
    return World(dist.get_rank(), dist.get_world_size())


def leave(world: World) -> None:
    """End what `join` began."""
    if world.processes > 1:
        dist.destroy_process_group()
