"""A model's weights in one safetensors file, or in shards of one."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from types import TracebackType
from typing import Any, cast

from ..errors import FileError, about_file
from .gguf import GgufFile
from .header import TensorInfo, open_binary, read_all
from .paths import ENDING, is_apple_double, is_safetensors
from .reader import SafetensorsFile
from .small_json import parse_small

__all__ = ["INDEX_SUFFIX", "Checkpoint", "shard_name"]

INDEX_SUFFIX = ".safetensors.index.json"
_MOST_BYTES = 2**24
"""The largest index; those of the largest models have some hundred kilobytes."""
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})(\.safetensors)", re.IGNORECASE)


class Checkpoint:
    """Open files that together hold a model, as one table of tensors.

    `path` may be a safetensors file, one shard of several, their index (`….safetensors.index.json`),
    or a folder that holds one of these; or a GGUF file, `….gguf`.

    Raises:
        FileError: a file is missing, damaged, or two hold the same tensor.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        with about_file(path), contextlib.ExitStack() as opened:
            paths = _files_of(self.path)
            self.files = tuple(opened.enter_context(_kind(p)(p)) for p in paths)
            self.holder: dict[str, SafetensorsFile] = {}
            for file in self.files:
                if twice := next((key for key in file.header.tensors if key in self.holder), None):
                    first = os.path.basename(self.holder[twice].path)
                    raise FileError(f"{twice}: is in {os.path.basename(file.path)} and in {first} too")
                self.holder |= dict.fromkeys(file.header.tensors, file)
            # Key -> its entry in the header of `holder[key]`, in the files' order.
            self.tensors: Mapping[str, TensorInfo] = {k: f.header.tensors[k] for k, f in self.holder.items()}
            self._opened = opened.pop_all()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Key -> shape of every tensor."""
        return {key: info.shape for key, info in self.tensors.items()}

    @property
    def metadata(self) -> dict[str, str]:
        """The first file's metadata, and what the others have beyond it."""
        merged: dict[str, str] = {}
        for file in reversed(self.files):
            merged |= file.header.metadata
        return merged

    @property
    def gguf(self) -> GgufFile | None:
        """The checkpoint's file, if it is a GGUF file."""
        return file if isinstance(file := self.files[0], GgufFile) else None

    @property
    def name(self) -> str:
        """The file's name, or what the shards' names begin with."""
        match = _SHARD.fullmatch(os.path.basename(self.files[0].path))
        return match[1] + match[4] if match else os.path.basename(self.files[0].path)

    def require_unchanged(self) -> None:
        """Raise `FileError` if a file is no longer what was opened."""
        for file in self.files:
            file.require_unchanged()


def shard_name(stem: str, number: int, total: int, *, ending: str = ENDING) -> str:
    """`stem-00001-of-00003.safetensors`, as Hugging Face numbers shards from 1 on."""
    return f"{stem}-{number:05}-of-{total:05}{ending}"


def _kind(path: str) -> type[SafetensorsFile]:
    return GgufFile if path.lower().endswith(".gguf") else SafetensorsFile


def _files_of(path: str) -> list[str]:
    if os.path.isdir(path):
        path = _only_checkpoint_in(path)
    if path.lower().endswith(".json"):
        return _indexed(path)
    folder, name = os.path.split(path)
    if (match := _SHARD.fullmatch(name)) is None:
        return [path]
    index = os.path.join(folder, match[1] + INDEX_SUFFIX)
    if os.path.exists(index):
        return _indexed(index)
    total = int(match[3])
    names = [shard_name(match[1], n, total, ending=match[4]) for n in range(1, total + 1)]
    return _require([os.path.join(folder, name) for name in names])


def _only_checkpoint_in(folder: str) -> str:
    try:
        names = sorted(name for name in os.listdir(folder) if not is_apple_double(name))
    except OSError as error:
        raise FileError(f"cannot be read: {error.strerror}") from None
    found = [n for n in names if n.lower().endswith(INDEX_SUFFIX)] or [n for n in names if is_safetensors(n)]
    if len(found) != 1:
        what = ", ".join(found) if found else "no safetensors file"
        raise FileError(f"is a folder with {what}; name the file, or the index of its shards")
    return os.path.join(folder, found[0])


def _indexed(path: str) -> list[str]:
    """The shards that an index names, in its order."""
    try:
        with open_binary(path) as file:
            parsed: Any = parse_small(str(read_all(file, _MOST_BYTES), "utf-8"), _MOST_BYTES)
        names = list(dict.fromkeys(cast(dict[str, Any], parsed["weight_map"]).values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise FileError("is no index of shards; expected JSON with a weight_map") from None
    if not names or not all(isinstance(n, str) and n == os.path.basename(n) and n not in ("", "..") for n in names):
        raise FileError("is no index of shards; expected plain file names in its weight_map")
    return _require([os.path.join(os.path.dirname(path), name) for name in sorted(names)])


def _require(paths: list[str]) -> list[str]:
    if missing := [os.path.basename(p) for p in paths if not os.path.isfile(p)]:
        raise FileError(f"{len(missing)} of its {len(paths)} shards are missing: {', '.join(missing)}")
    return paths
