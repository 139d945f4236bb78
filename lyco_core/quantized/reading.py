"""Bytes of a quantized weight's tensors from files: some rows of it, and what stands there once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from ..devices import free_bytes, is_cuda
from ..io.reader import SafetensorsFile
from ..scratch import scratch
from .form import Form, RoleTensors

__all__ = ["FILE_BAND_BYTES", "bands", "key_of", "read_fixed", "read_rows", "read_weight"]

FILE_BAND_BYTES = 2**23
"""Bytes of float32 that a band may take to be read from a file: large enough that starting it costs nothing; each of 16
workers holds two of them."""

DEVICE_FILE_BAND_BYTES = 2**26
"""The same at most where a band is computed elsewhere, and each costs launches of kernels and a wait for the copy."""

_AT_ONCE = 128
"""How many bands' memory may be in use at once there: 16 workers' copies, factors' products and roundings."""

Files = Mapping[str, SafetensorsFile]
"""Key -> the file that has it."""


def key_of(form: Form, role: str) -> str:
    """The key of one of a weight's tensors."""
    return form.found.key.removesuffix("weight") + role


def read_fixed(form: Form, files: Files, device: str | torch.device = "cpu") -> dict[str, Tensor]:
    """The tensors that are there once for all rows, as bytes."""
    return _read(form, files, {role: (0, form.found.infos[role].bytes) for role in form.fixed}, device, keep=True)


def read_rows(
    form: Form, files: Files, start: int, stop: int, fixed: RoleTensors, device: str | torch.device = "cpu"
) -> Tensor:
    """Rows start:stop in the form's own basis, in memory of the thread's."""
    places = {role: form.place(role, start, stop) for role in ("weight", *form.beside)}
    parts = _read(form, files, places, device, keep=False)
    return form.decode({**fixed, **parts})[: stop - start]


def read_weight(form: Form, files: Files, device: str | torch.device = "cpu") -> Tensor:
    """The whole weight in float32, of its shape."""
    fixed = read_fixed(form, files, device)
    weight = torch.empty(form.rows, form.columns, device=device)
    for start, stop in bands(form.rows, form.columns, form.step, device):
        weight[start:stop] = form.straighten(read_rows(form, files, start, stop, fixed, device), fixed)
    return weight.view(form.shape)


def bands(rows: int, columns: int, multiple: int = 1, device: str | torch.device = "cpu") -> Iterator[tuple[int, int]]:
    """start:stop of bands to compute on `device`, which begin at multiples of so many rows."""
    step = max(1, _band_bytes(device) // (4 * max(columns, 1)) // multiple) * multiple
    yield from ((start, min(start + step, rows)) for start in range(0, rows, step))


def _band_bytes(device: str | torch.device) -> int:
    free = free_bytes(device)
    return FILE_BAND_BYTES if free is None else max(FILE_BAND_BYTES, min(DEVICE_FILE_BAND_BYTES, free // _AT_ONCE))


def _read(
    form: Form, files: Files, places: Mapping[str, tuple[int, int]], device: str | torch.device, *, keep: bool
) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    on_processor, pinned = str(device) == "cpu", is_cuda(str(device))
    for role, (first, last) in places.items():
        size = last - first
        data = (
            torch.empty(size, dtype=torch.uint8)
            if keep
            else scratch(f"stored {role}", (size,), torch.uint8, pinned=pinned)
        )
        if size:
            key = key_of(form, role)
            files[key].read_into(data.numpy().data, key, first)
        found[role] = data if on_processor else data.to(device, non_blocking=pinned and not keep)
    return found
