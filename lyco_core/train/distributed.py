"""The processes of one training: each has part of every batch, and all have the same network."""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["World", "join", "leave"]


class World:
    """All processes of a training, seen from one of them."""

    def __init__(self, rank: int = 0, processes: int = 1) -> None:
        self.rank, self.processes = rank, processes

    @property
    def writes(self) -> bool:
        """Whether this process is the one that saves and tells."""
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
        """Whether it is true in one of them."""
        if self.processes == 1:
            return value
        flag = torch.tensor([float(value)], device="cuda" if dist.get_backend() == "nccl" else "cpu")
        dist.all_reduce(flag)
        return bool(flag)

    def wait(self) -> None:
        """Until all are here."""
        if self.processes > 1:
            dist.barrier()


def join(backend: str | None = None) -> World:
    """The processes that `torchrun` started, or this one alone.

    Args:
        backend: torch's name for it; None: nccl where there are GPUs, else gloo.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return World()
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group(backend or ("nccl" if cuda else "gloo"))
    return World(dist.get_rank(), dist.get_world_size())


def leave(world: World) -> None:
    """End what `join` began."""
    if world.processes > 1:
        dist.destroy_process_group()
