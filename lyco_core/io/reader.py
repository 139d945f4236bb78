"""Tensors of a safetensors file, each read when it is asked for."""

from __future__ import annotations

import os
from types import TracebackType

import torch
from torch import Tensor

from ..errors import FileError, about_file
from .header import Header, header_of, open_binary

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
                self.header: Header = header_of(self._file)
            except BaseException:
                self._file.close()
                raise

    def __enter__(self) -> SafetensorsFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

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
        tensor = torch.empty(info.shape, dtype=self.dtype(key))
        if info.bytes:
            self._file.seek(info.start)
            read = self._fill(tensor.view(-1).view(torch.uint8).numpy().data)
            if read != info.bytes:
                with about_file(self.path):
                    raise FileError(
                        f"{key}: {read} of {info.bytes} bytes are left; was the file replaced? load it again"
                    )
        return tensor

    def _fill(self, buffer: memoryview) -> int:
        """Read until `buffer` is full or the file ends; how many bytes that was."""
        done = 0
        while done < len(buffer) and (count := self._file.readinto(buffer[done:])):
            done += count
        return done

    def outline(self, key: str) -> Tensor:
        """The tensor without its data: on the meta device, of the right shape and dtype."""
        return torch.empty(self.header.tensors[key].shape, dtype=self.dtype(key), device="meta")
