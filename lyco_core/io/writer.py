"""Writing safetensors: streaming, and whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from .header import DTYPE_BITS
from .output import new_files
from .reader import TORCH_DTYPES

__all__ = ["StoredSpec", "TensorSpec", "bytes_of", "header_bytes", "library_order", "write_safetensors"]

_NAMES = {dtype: name for name, dtype in TORCH_DTYPES.items()}
_LIBRARY_DTYPES = ["BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "I16", "F16", "BF16", "I32", "F32", "F64", "I64"]


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """What will be written under a key: known before the tensor itself is computed."""

    key: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def dtype_name(self) -> str:
        """The dtype as the format spells it."""
        return _NAMES[self.dtype]

    @property
    def bytes(self) -> int:
        """Size of its data."""
        return torch.Size(self.shape).numel() * DTYPE_BITS[self.dtype_name] // 8


@dataclasses.dataclass(frozen=True)
class StoredSpec:
    """What will be written under a key, as bytes: its dtype goes by the format's name, and torch need not have it."""

    key: str
    shape: tuple[int, ...]
    dtype_name: str
    bytes: int


def write_safetensors(
    path: str | os.PathLike[str],
    specs: Sequence[TensorSpec],
    tensors: Iterable[Tensor],
    metadata: Mapping[str, str] | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Write tensors one at a time into a file beside `path`, then rename it to `path`.

    Args:
        specs: what is to come, in the file's order.
        tensors: as many, of those shapes and dtypes; computed one at a time if it is a generator.
        overwrite: replace a file that is there.

    Raises:
        FileError: `path` is there already or cannot be written; nothing is left behind.
    """
    with new_files([path], overwrite=overwrite) as (file,):
        header = header_bytes(specs, metadata or {})
        file.write(header, 0)
        position = len(header)
        for spec, tensor in zip(specs, tensors, strict=True):
            if tuple(tensor.shape) != spec.shape or tensor.dtype != spec.dtype:
                raise ValueError(f"{spec.key}: announced {spec}, got {tensor.dtype} {list(tensor.shape)}")
            file.write(bytes_of(tensor), position)
            position += spec.bytes


def bytes_of(tensor: Tensor) -> memoryview:
    """A tensor's data as the format stores it, without a copy where it lies so already."""
    flat = tensor.detach().cpu().contiguous().view(-1)
    return flat.view(torch.uint8).numpy().data if flat.numel() else memoryview(b"")


def library_order(specs: Sequence[TensorSpec]) -> list[TensorSpec]:
    """The order in which the safetensors library stores tensors: widest dtypes first, then by name."""
    return sorted(specs, key=lambda spec: (-_LIBRARY_DTYPES.index(_NAMES[spec.dtype]), spec.key))


def header_bytes(specs: Iterable[TensorSpec | StoredSpec], metadata: Mapping[str, str]) -> bytes:
    """Everything before the data: the header's length, and the header."""
    table: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for spec in specs:
        offsets = [offset, offset + spec.bytes]
        table[spec.key] = {"dtype": spec.dtype_name, "shape": list(spec.shape), "data_offsets": offsets}
        offset = offsets[1]
    text = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
