"""Checkpoints whose inputs wait in the computer's memory for the backward pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint  # pyright: ignore[reportUnknownVariableType]

__all__ = ["offloaded_checkpoint"]


class _Away(NamedTuple):
    """A tensor in the computer's memory, and where it is wanted."""

    values: Tensor
    device: torch.device


def offloaded_checkpoint(run: Callable[..., Any], args: Sequence[Any], named: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """`run(*args, **named)`, computed again for the backward pass from inputs that are not kept on the device.

    Those are the ones that have a gradient, which the block before has made. What all blocks are given alike stays.
    """
    names, count = list(named), len(args)
    every = [*args, *named.values()]  # torch passes on to the hooks what is given by position
    made = {value.data_ptr() for value in every if isinstance(value, Tensor) and value.requires_grad}

    def again(*values: Any) -> Any:  # noqa: ANN401
        return run(*values[:count], **dict(zip(names, values[count:], strict=True)))

    def pack(tensor: Tensor) -> Tensor | _Away:
        if tensor.data_ptr() not in made:
            return tensor
        pinned = tensor.device.type == "cuda"
        values = torch.empty_like(tensor, device="cpu", pin_memory=pinned, requires_grad=False)
        # In the order of the device's own work; it is read back in that order too.
        return _Away(values.copy_(tensor, non_blocking=pinned), tensor.device)

    def unpack(kept: Tensor | _Away) -> Tensor:
        return kept.values.to(kept.device, non_blocking=True, copy=True) if isinstance(kept, _Away) else kept

    with saved_tensors_hooks(pack, unpack):
        return checkpoint(again, *every, use_reentrant=False)
