"""From a file to an identified `AdapterSet`: as an outline, or with its tensors."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Collection
from types import TracebackType
from typing import TYPE_CHECKING, TypedDict

import torch
from torch import Tensor

from .adapter_set import AdapterSet
from .architectures import ARCHITECTURES, identify, named_as
from .errors import AdapterError, ArchitectureError, FileError, FormatError, Remedy, about_file
from .formats import FORMATS, parse, sort_keys, split_key
from .formats.peft import read_config
from .formats.suffixes import NUMBERS, unread
from .io import SafetensorsFile
from .layouts import Layout
from .model import Model
from .text import shorten

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = [
    "AdapterFile",
    "Identifying",
    "check_finite",
    "checkpoint_of",
    "load_adapter_set",
    "outline_adapter_set",
    "read_adapter_set",
    "require_adapters",
    "require_known",
]


MOST_TENSORS = 100_000
"""How many tensors a file may have; real ones have up to some 10,000. Each costs about 1 kB of memory and 50 µs."""


Rename = Callable[[dict[str, Tensor]], dict[str, Tensor]]
"""All tensors of a file by key -> the same by other keys."""


class Identifying(TypedDict, total=False):
    """The named arguments of `architectures.identify`."""

    architecture: str | None
    model_modules: Collection[str] | None
    prefer: str | None
    layout: Layout


class AdapterFile:
    """An open adapter file: first its header tells what it is, then its tensors are read.

    Its keys are sorted into modules once, for both.

        with AdapterFile(path) as file:
            outline = model.identify(file.outline)  # which may be refused before a number is read
            adapters = file.read(outline)

    Raises:
        FileError: it cannot be opened, or is no safetensors file of an adapter's size.
        FormatError: PEFT's configuration beside it cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._file = SafetensorsFile(path)
        with contextlib.ExitStack() as closing, about_file(path):
            closing.push(self)
            _require_few(self._file)
            self.keys = sort_keys(self._file.header.tensors, self._small)
            self._config = read_config(path)
            closing.pop_all()

    def __enter__(self) -> AdapterFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.__exit__(kind, error, trace)

    @functools.cached_property
    def outline(self) -> AdapterSet:
        """The adapters without their numbers: tensors on the meta device, only alphas read.

        Everything that shapes tell (architecture, ranks, placement) is there in milliseconds.
        """
        with about_file(self.path):
            tensors = {key: self._small(key) for key in self._file.header.tensors}
            return parse(tensors, self._file.header.metadata, self._config, self.keys)

    def read(self, outline: AdapterSet | None = None, rename: Rename | None = None) -> AdapterSet:
        """The adapters, their tensors read and checked; modules as the file spells them, or as `outline` has them.

        Args:
            outline: this file's, identified.
            rename: a host's own change of keys, made before they are parsed; an outline of others is not used.

        Raises:
            LycoError: what is wrong with the file, naming it; NaN or Inf in a tensor too.
        """
        with about_file(self.path):
            self._file.require_memory()
            tensors, finite = self._file.tensors()
            tensors = tensors if rename is None else _renamed(tensors, rename)
            same = tensors.keys() == self._file.header.tensors.keys()
            keys = self.keys if same else sort_keys(tensors, tensors.__getitem__)
            found = parse(tensors, self._file.header.metadata, self._config, keys)
            if not finite:
                for key in keys.of_factors:
                    check_finite(key, tensors[key])
            return found if outline is None else named_as(found, outline)

    def _small(self, key: str) -> Tensor:
        """A single number as it is, and the outline of any other tensor."""
        number = split_key(key)[1] in NUMBERS and self._file.header.tensors[key].bytes <= 8
        return self._file.tensor(key) if number else self._file.outline(key)


def outline_adapter_set(path: str | os.PathLike[str], **identifying: Unpack[Identifying]) -> AdapterSet:
    """`AdapterFile.outline`, identified; the file is not kept open.

    Args:
        identifying: see `architectures.identify`.

    Raises:
        LycoError: what is wrong with the file, naming it.
    """
    with about_file(path), AdapterFile(path) as file:
        return identify(file.outline, **identifying)


def load_adapter_set(path: str | os.PathLike[str], **identifying: Unpack[Identifying]) -> AdapterSet:
    """The adapters of a file, their tensors read and checked; arguments as `outline_adapter_set`'s.

    Raises:
        LycoError: what is wrong with the file, naming it; NaN or Inf in a tensor too.
    """
    with about_file(path):
        return identify(read_adapter_set(path), **identifying)


def read_adapter_set(path: str | os.PathLike[str], rename: Rename | None = None) -> AdapterSet:
    """The adapters of a file, their tensors read and checked, not identified: modules as the file spells them.

    Args:
        rename: see `AdapterFile.read`.

    Raises:
        LycoError: what is wrong with the file, naming it; NaN or Inf in a tensor too.
    """
    with AdapterFile(path) as file:
        return file.read(rename=rename)


def _require_few(file: SafetensorsFile) -> None:
    count = len(file.header.tensors)
    if count > MOST_TENSORS:
        raise FileError(f"holds {count} tensors, expected an adapter's at most {MOST_TENSORS}; is it one?")


def _renamed(tensors: dict[str, Tensor], rename: Rename) -> dict[str, Tensor]:
    try:
        return rename(tensors)
    except Exception as error:  # the host's own, which takes for granted what a known trainer writes
        raise FormatError(
            f"its keys look like a trainer's whose files the host renames, and lack what those have "
            f"({type(error).__name__}: {error}); the file is incomplete"
        ) from None


def check_finite(key: str, tensor: Tensor) -> None:
    """Raise `AdapterError` naming `key` if a number in `tensor` is NaN or infinite."""
    if bool(torch.isfinite(_sum(tensor))):
        return
    bad = int((~torch.isfinite(_numbers(tensor))).sum())
    if bad:
        raise AdapterError(
            f"{key}: {bad} of its {tensor.numel()} numbers are NaN or infinite; "
            "training diverged or the file is damaged, use an earlier save"
        )


def _sum(tensor: Tensor) -> Tensor:
    """The sum of all numbers: finite only if every term is, and much the faster test."""
    return _numbers(tensor).sum(dtype=torch.float32)


def _numbers(tensor: Tensor) -> Tensor:
    """The tensor in a dtype in which every device sums."""
    return tensor if tensor.element_size() in (2, 4) else tensor.to(torch.float32)


def require_adapters(adapter_set: AdapterSet) -> AdapterSet:
    """The set itself, if it holds adapters; on a model, that is all that is asked of it.

    Raises:
        FormatError: it holds none.
    """
    if not adapter_set.adapters and adapter_set.idle:
        raise FormatError(f"holds nothing that changes a model: {'; '.join(adapter_set.left_out)}")
    if not adapter_set.adapters:
        keys = [*adapter_set.unrecognised_keys, *adapter_set.foreign]
        if others := unread(keys):
            raise FormatError(f"holds {'; '.join(others)}, which is not read here")
        what = checkpoint_of(adapter_set) or (f"keys like {shorten(keys)}" if keys else "no tensors")
        raise FormatError(f"holds no adapter; found {what}; expected one of: {_known_formats()}")
    return adapter_set


def require_known(adapter_set: AdapterSet) -> AdapterSet:
    """The set itself, if it holds adapters of a known format and architecture.

    Raises:
        FormatError: it holds none, or their modules are spelled in no known way.
        ArchitectureError: they are of no known model family.
    """
    require_adapters(adapter_set)
    if adapter_set.format is None:
        prefixes = shorten(list(adapter_set.prefixes.values()))
        raise FormatError(
            f"its modules are spelled in an unknown way ({prefixes}); expected one of: {_known_formats()}"
        )
    if adapter_set.architecture is None:
        prefixes = shorten(list(adapter_set.prefixes.values()))
        if adapter_set.doubt:
            raise ArchitectureError(
                f"its modules are of no known architecture ({prefixes}): {adapter_set.doubt}", Remedy.ARCHITECTURE
            )
        titles = ", ".join(a.title for a in ARCHITECTURES.values())
        raise ArchitectureError(f"its modules are of no known architecture ({prefixes}); known are {titles}")
    return adapter_set


def _known_formats() -> str:
    return "; ".join(f.title for f in FORMATS.values())


def checkpoint_of(adapter_set: AdapterSet) -> str | None:
    """`the weights of a … model`, if those are what a file without adapters holds; else None."""
    architecture = Model.of(adapter_set.unrecognised).architecture
    return None if architecture is None else f"the weights of {architecture.title}"
