"""The way out: what every adapter file that is written goes through."""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch
from torch import Tensor

from .adapters import Adapter
from .errors import AdapterError
from .formats.suffixes import suffix_of
from .io import TensorSpec, library_order, write_safetensors
from .load import check_finite

__all__ = ["narrowed", "stored_as", "write_adapters"]


def write_adapters(
    output: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str], *, overwrite: bool
) -> None:
    """Write a file of adapters; nothing is left under `output` unless all of it is.

    Raises:
        FileError: it cannot be written.
    """
    specs = library_order([TensorSpec(key, tuple(t.shape), t.dtype) for key, t in tensors.items()])
    write_safetensors(output, specs, (tensors[spec.key] for spec in specs), dict(metadata), overwrite=overwrite)


def stored_as(adapter: Adapter, dtype: torch.dtype | None, prefix: str, *, peft: bool = False) -> Adapter:
    """The adapter as a file holds it, in `dtype`; None: in its own.

    Args:
        prefix: what its keys begin with, for messages.
        peft: whether they are spelled as PEFT's.

    Raises:
        AdapterError: a number is NaN or infinite there.
    """
    keys = {field: f"{prefix}.{suffix_of(kind, field, peft=peft)}" for kind, field in adapter.stored}
    return adapter.with_tensors({name: narrowed(keys[name], t, dtype) for name, t in adapter.tensors.items()})


def narrowed(key: str, tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """`tensor` in `dtype`, rounded to the nearest. Raises `AdapterError` for a number that is none there."""
    stored = tensor if dtype is None else tensor.to(dtype)
    if bool(torch.isfinite(stored).all()):
        return stored
    check_finite(key, tensor)
    largest = float(tensor.abs().max())
    wider = [kind for kind in (torch.bfloat16, torch.float32) if largest <= torch.finfo(kind).max]
    raise AdapterError(
        f"{key}: its {largest:g} is beyond what {_name(stored.dtype)} holds, {torch.finfo(stored.dtype).max:g}; "
        f"store it as {' or '.join(map(_name, wider))}"
    )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
