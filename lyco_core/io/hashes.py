"""The hashes that sd-scripts and Musubi Tuner store with an adapter: `sshs_model_hash`, `sshs_legacy_hash`.

Both are SHA-256 of what safetensors' own `save` would write with the `ss_` metadata alone: the first
of all tensor data, the second (its first 8 digits) of 64 KiB of the file from its first MiB on.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor

from ..errors import FileError, about_file
from .header import open_binary
from .positional import SharedFile
from .writer import TensorSpec, bytes_of, header_bytes

__all__ = ["auto_v1", "sha256", "sshs_hashes"]

_LEGACY_START, _LEGACY_STOP = 0x100000, 0x110000


def sshs_hashes(specs: Sequence[TensorSpec], tensors: Iterable[Tensor], metadata: Mapping[str, str]) -> dict[str, str]:
    """Metadata key -> hash, for both hashes.

    Args:
        specs: what is to come, in `library_order`.
        tensors: as many, one at a time if it is a generator.
    """
    training = {key: value for key, value in metadata.items() if key.startswith("ss_")}
    header = header_bytes(specs, training)
    model = hashlib.sha256()
    legacy = hashlib.sha256(header[_LEGACY_START:_LEGACY_STOP])
    position = len(header)
    for tensor in tensors:
        data = bytes_of(tensor)
        model.update(data)
        first, last = max(_LEGACY_START - position, 0), max(_LEGACY_STOP - position, 0)
        legacy.update(data[first:last])
        position += len(data)
    return {"sshs_model_hash": model.hexdigest(), "sshs_legacy_hash": legacy.hexdigest()[:8]}


def auto_v1(path: str | os.PathLike[str]) -> str:
    """The short hash that checkpoints have long gone by (AutoV1): SHA-256 of 64 KiB from the first MiB on, 8 digits."""
    with about_file(path), open_binary(path) as file:
        block = bytearray(_LEGACY_STOP - _LEGACY_START)
        return hashlib.sha256(block[: _read(file, block, _LEGACY_START)]).hexdigest()[:8]


def sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a whole file, in hexadecimal digits; raises `FileError` where it cannot be read, or went away."""
    digest, block, position = hashlib.sha256(), bytearray(2**20), 0
    with about_file(path), open_binary(path) as file:
        while count := _read(file, block, position):
            digest.update(memoryview(block)[:count])
            position += count
    return digest.hexdigest()


def _read(file: SharedFile, block: bytearray, offset: int) -> int:
    try:
        return file.read_at(memoryview(block), offset)
    except OSError as error:
        raise FileError(f"cannot be read: {error.strerror}") from None
