"""Tensors of a safetensors file, each read when it is asked for."""

from __future__ import annotations

import copy
import os
from types import TracebackType

import torch
from torch import Tensor

from ..errors import FileError, about_file
from .bulk import all_finite, read_whole, views
from .header import Header, TensorInfo, header_of, open_binary
from .positional import SharedFile

__all__ = ["TORCH_DTYPES", "SafetensorsFile"]

TORCH_DTYPES: dict[str, torch.dtype] = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}
"""safetensors' name of a dtype -> torch's."""


class SafetensorsFile:
    """An open safetensors file: a header, and tensors on demand.

    Reads rather than maps, so that a file that is replaced or cut off meanwhile is an error,
    not a crash, and so that nothing keeps it from being replaced on Windows.

        with SafetensorsFile("adapter.safetensors") as file:
            weight = file.tensor("blocks.0.weight")
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        with about_file(path):
            self._file = open_binary(path)
            try:
                self._opened = _stamp(os.fstat(self._file.fileno()))
                self.header: Header = self._read_header(self._file)
            except BaseException:
                self._file.close()
                raise

    def _read_header(self, file: SharedFile) -> Header:
        return header_of(file)

    def again(self) -> SafetensorsFile:
        """The file opened anew, whether this is still open or not; its header is not read again.

        Raises:
            FileError: it is not the file that was opened, or was written to since.
        """
        other = copy.copy(self)
        with about_file(self.path):
            other._file = open_binary(self.path)
            try:
                other.require_unchanged()
            except BaseException:
                other._file.close()
                raise
        return other

    def __enter__(self) -> SafetensorsFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with about_file(self.path):
            try:
                self._file.close()
            except OSError as left:  # of a network file system, say; what was read may be wrong
                raise FileError(f"could not be closed: {left.strerror}; read it again") from None

    def dtype(self, key: str) -> torch.dtype:
        """The torch dtype of a tensor. Raises `FileError` where torch has none."""
        name = self.header.tensors[key].dtype
        if name not in TORCH_DTYPES:
            with about_file(self.path):
                raise FileError(f"{key}: dtype {name} is not one that can be read; expected {', '.join(TORCH_DTYPES)}")
        return TORCH_DTYPES[name]

    def tensor(self, key: str) -> Tensor:
        """Read one tensor into memory of its own. Raises `KeyError`, or `FileError` if it is cut off."""
        info = self.header.tensors[key]
        tensor = self._empty(key, info)
        if info.bytes:
            self.read_into(tensor.view(-1).view(torch.uint8).numpy().data, key)
        return tensor

    def tensors(self) -> tuple[dict[str, Tensor], bool]:
        """All tensors, as parts of one memory, and whether it is sure that every number in them is finite.

        Raises:
            FileError: a dtype is not one that can be read, there is no memory, or the file is cut off.
        """
        table = self.header.tensors
        dtypes = {info.dtype: self.dtype(key) for key, info in table.items()}
        try:
            data, finite = read_whole(self._file, table)
        except (OSError, EOFError, MemoryError):  # one by one, to say which cannot be read
            return {key: self.tensor(key) for key in table}, False
        return views(data, table, dtypes), finite

    def finite(self) -> bool:
        """Whether it is sure that every number in all tensors is finite; nothing of them stays in memory."""
        try:
            return all_finite(self._file, self.header.tensors)
        except (OSError, EOFError):  # who reads one by one is told which cannot be
            return False

    def _empty(self, key: str, info: TensorInfo) -> Tensor:
        dtype = self.dtype(key)
        try:
            return torch.empty(info.shape, dtype=dtype)
        except (RuntimeError, MemoryError):
            with about_file(self.path):
                raise FileError(f"{key}: there is no memory for its {info.bytes} bytes; is it an adapter?") from None

    def read_into(self, buffer: memoryview, key: str, offset: int = 0) -> None:
        """Fill `buffer` with a tensor's data from byte `offset` of it on; threads may read at once.

        Raises `FileError` if the file ends before.
        """
        info = self.header.tensors[key]
        with about_file(self.path):
            try:
                read = self._file.read_at(buffer, info.start + offset)
            except OSError as error:
                raise FileError(f"{key}: cannot be read: {error.strerror}") from None
            if read != len(buffer):
                raise FileError(
                    f"{key}: {offset + read} of {info.bytes} bytes are left; was the file replaced? load it again"
                )

    def require_unchanged(self) -> None:
        """Raise `FileError` if the file is not the one that was opened, or was written to since."""
        with about_file(self.path):
            try:
                now = _stamp(os.stat(self.path))
            except OSError as error:
                raise FileError(f"went away while it was read: {error.strerror}; try again") from None
            if now != self._opened or _stamp(os.fstat(self._file.fileno())) != self._opened:
                raise FileError("changed while it was read; try again once nothing writes to it")

    def require_memory(self) -> None:
        """Raise `FileError` if all tensors together are more than the machine's memory: a sparse file can say so."""
        total = sum(info.bytes for info in self.header.tensors.values())
        if total > (most := _machine_memory()):
            with about_file(self.path):
                raise FileError(f"holds {total} bytes of tensors, the machine has {most} of memory; is it an adapter?")

    def outline(self, key: str) -> Tensor:
        """The tensor without its data: on the meta device, of the right shape and dtype."""
        return torch.empty(self.header.tensors[key].shape, dtype=self.dtype(key), device="meta")


def _machine_memory() -> int:
    """Bytes of it, or what no file has where the system does not say (Windows)."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 2**63


def _stamp(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns
