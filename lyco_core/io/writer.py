"""Writing safetensors: streaming, and whole or not at all."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import secrets
from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import BinaryIO

import torch
from torch import Tensor

from ..errors import FileError, about_file
from .header import DTYPE_BITS
from .reader import TORCH_DTYPES

__all__ = ["TensorSpec", "bytes_of", "header_bytes", "library_order", "refuse_existing", "write_safetensors"]

_NAMES = {dtype: name for name, dtype in TORCH_DTYPES.items()}
_LIBRARY_DTYPES = ["BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "I16", "F16", "BF16", "I32", "F32", "F64", "I64"]


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """What will be written under a key: known before the tensor itself is computed."""

    key: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        """Size of its data."""
        return torch.Size(self.shape).numel() * DTYPE_BITS[_NAMES[self.dtype]] // 8


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
    path = os.fspath(path)
    with about_file(path):
        refuse_existing(path, overwrite=overwrite)
        with _replacing(path) as file:
            file.write(header_bytes(specs, metadata or {}))
            for spec, tensor in zip(specs, tensors, strict=True):
                if tuple(tensor.shape) != spec.shape or tensor.dtype != spec.dtype:
                    raise ValueError(f"{spec.key}: announced {spec}, got {tensor.dtype} {list(tensor.shape)}")
                file.write(bytes_of(tensor))


def refuse_existing(path: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Raise `FileError` unless a file may be written at `path`."""
    if not os.fspath(path):
        raise FileError("the output has no name; give it one")
    if os.path.isdir(path):
        raise FileError("is a folder; give the name of a file")
    if os.path.lexists(path) and not overwrite:
        raise FileError("is there already; choose another name, or ask for it to be overwritten")


def bytes_of(tensor: Tensor) -> memoryview:
    """A tensor's data as the format stores it, without a copy where it lies so already."""
    flat = tensor.detach().cpu().contiguous().view(-1)
    return flat.view(torch.uint8).numpy().data if flat.numel() else memoryview(b"")


def library_order(specs: Sequence[TensorSpec]) -> list[TensorSpec]:
    """The order in which the safetensors library stores tensors: widest dtypes first, then by name."""
    return sorted(specs, key=lambda spec: (-_LIBRARY_DTYPES.index(_NAMES[spec.dtype]), spec.key))


def header_bytes(specs: Sequence[TensorSpec], metadata: Mapping[str, str]) -> bytes:
    """Everything before the data: the header's length, and the header."""
    table: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for spec in specs:
        offsets = [offset, offset + spec.bytes]
        table[spec.key] = {"dtype": _NAMES[spec.dtype], "shape": list(spec.shape), "data_offsets": offsets}
        offset = offsets[1]
    text = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


@contextlib.contextmanager
def _replacing(path: str) -> Generator[BinaryIO]:
    """A temporary file beside `path` that takes its place at the end, or is removed."""
    folder, name = os.path.split(os.path.abspath(path))
    temporary = os.path.join(folder, f".{name[:100]}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as raw:
            yield raw
            raw.flush()
            os.fsync(raw.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise FileError(f"cannot be written: {error.strerror}; nothing is left of it") from None
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
