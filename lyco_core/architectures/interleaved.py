"""Fused attention whose rows DiffSynth has in the order of the model's first files: head by head, not q, k, v."""

from __future__ import annotations

import dataclasses
import re

from torch import Tensor

from ..adapter_set import AdapterSet
from ..adapters import Adapter, DoRA, LoRA
from ..errors import AdapterError
from ..layouts import Layout
from .table import Architecture

__all__ = ["head_by_head", "stacked"]

_BY_PEFT = re.compile(r"\.lora_[AB]\.[^.]+\.weight")
"""What PEFT calls a factor in the model itself: files of DiffSynth's have it, and no prefix."""


def head_by_head(adapter_set: AdapterSet, path: str, prefix: str, family: Architecture, layout: Layout) -> bool:
    """Whether the module is such fused attention, in a file that DiffSynth wrote.

    Args:
        prefix: what its keys begin with.
    """
    if not family.diffsynth_head or adapter_set.architecture is not None or prefix != path:
        return False
    if family.resolve(path, layout, underscored=False) is None:
        return False
    group, names = family.group_of(path, layout)[0], adapter_set.keys.get(prefix, {})
    fused = len(group.heights) == 3 and len(group.names(layout) or ()) == 1
    return fused and any(_BY_PEFT.search(key) for key in names.values())


def stacked(adapter: Adapter, head: int) -> Adapter:
    """The adapter of the weight that has all queries above all keys, and these above all values. Exact.

    Args:
        head: how many rows a head's queries have.

    Raises:
        AdapterError: its algebra has no such form, or its rows are not those of heads.
    """
    if isinstance(adapter, DoRA):
        magnitude = _stacked(adapter.magnitude, head) if adapter.axis == 0 else adapter.magnitude
        return dataclasses.replace(adapter.on(stacked(adapter.inner, head)), magnitude=magnitude)
    if not isinstance(adapter, LoRA) or adapter.shape[0] % (3 * head):
        raise AdapterError(
            f"is {adapter.title} of {adapter.shape[0]} rows, in a file as DiffSynth writes them, whose rows are in "
            f"another order; expected a LoRA, of heads of 3 x {head} rows"
        )
    return adapter.with_tensors({**adapter.tensors, "up": _stacked(adapter.tensors["up"], head)})


def _stacked(rows: Tensor, head: int) -> Tensor:
    return rows.reshape(-1, 3, head, *rows.shape[1:]).transpose(0, 1).reshape(rows.shape)
