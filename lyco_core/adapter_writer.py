"""From an `AdapterSet` to a file: the one way out, whatever made the set."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor

from .adapter_set import AdapterSet
from .adapters import Adapter, is_outline
from .errors import AdapterError, about_file
from .finite import check_finite
from .formats import Format, emit, spelled
from .formats.suffixes import suffix_of
from .io import TensorSpec, library_order, sshs_hashes, write_safetensors

__all__ = ["LetGo", "save_adapter_set", "stored_as"]

LetGo = Callable[[Iterable[Tensor]], None]
"""Is told of tensors that are done with for a while."""


def save_adapter_set(
    adapter_set: AdapterSet,
    path: str | os.PathLike[str],
    *,
    format: Format | None = None,
    dtype: torch.dtype | None = None,
    overwrite: bool = False,
    metadata: Mapping[str, str] | None = None,
    let_go: LetGo = lambda tensors: None,
) -> None:
    """Write a set of adapters; nothing is left under `path`, or what was there, unless all of it is written.

    Args:
        format: how its modules are to be spelled; None: as they are. It changes no module's name
            beyond that: `convert` is for another layout.
        dtype: of every tensor, but for an alpha that it does not hold exactly; None: of each its own.
        overwrite: replace a file that is there.
        metadata: beside the set's own, which it wins over.
        let_go: called with tensors that are done with, and may come again.

    Raises:
        AdapterError: a number is NaN or infinite, or is so in `dtype`; the set is an outline.
        PlacementError: the format cannot hold something of the set; see `emit`.
        FileError: `path` cannot be written.
    """
    with about_file(path):
        if format is not None and format is not adapter_set.format:
            adapter_set = spelled(adapter_set, format)
        tensors, notes = emit(_stored(adapter_set, dtype, metadata or {}, let_go))
    specs = library_order([TensorSpec(key, tuple(t.shape), t.dtype) for key, t in tensors.items()])

    def in_turn() -> Iterator[Tensor]:
        for spec in specs:
            yield tensors[spec.key]
            let_go([tensors[spec.key]])

    notes |= sshs_hashes(specs, in_turn(), notes)
    write_safetensors(path, specs, in_turn(), notes, overwrite=overwrite)


def _stored(
    adapter_set: AdapterSet, dtype: torch.dtype | None, metadata: Mapping[str, str], let_go: LetGo
) -> AdapterSet:
    """The set as the file will hold it."""
    if outline := next((path for path, adapter in adapter_set.adapters.items() if is_outline(adapter)), None):
        raise AdapterError(f"{adapter_set.prefixes[outline]}: is an outline without numbers; load the file to save it")
    adapters: dict[str, Adapter] = {}
    for path, adapter in adapter_set.adapters.items():
        adapters[path] = stored_as(adapter.to("cpu"), dtype, adapter_set.prefixes[path], format=adapter_set.format)
        let_go(adapter.tensors.values())
    return dataclasses.replace(
        adapter_set,
        adapters=adapters,
        alpha_tensors=adapter_set.alpha_tensors if dtype is None else {},
        metadata={**adapter_set.metadata, **metadata},
    )


def stored_as(adapter: Adapter, dtype: torch.dtype | None, prefix: str, *, format: Format | None = None) -> Adapter:
    """The adapter as a file holds it, in `dtype`; None: in its own.

    Args:
        prefix: what its keys begin with, for messages.
        format: how they are spelled, for messages.

    Raises:
        AdapterError: a number is NaN or infinite there.
    """
    peft = format is not None and format.peft
    keys = {field: f"{prefix}.{suffix_of(kind, field, peft=peft)}" for kind, field in adapter.stored}
    return adapter.with_tensors({name: _narrowed(keys[name], t, dtype) for name, t in adapter.tensors.items()})


def _narrowed(key: str, tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """`tensor` in `dtype`, rounded to the nearest. Raises `AdapterError` for a number that is none there."""
    if dtype is None or dtype == tensor.dtype:
        check_finite(key, tensor)
        return tensor
    stored = tensor.to(dtype)
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
