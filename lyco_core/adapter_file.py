"""An open adapter file: its header first, then its tensors, all of them or those that are asked for."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Mapping
from types import TracebackType

from torch import Tensor

from .adapter_set import AdapterSet
from .adapters import Adapter
from .architectures import named_as, part_named_as
from .errors import FileError, FormatError, about_file
from .finite import check_finite
from .formats import Keys, ModuleParser, parse, sort_keys, split_key
from .formats.peft import read_config
from .formats.suffixes import NUMBERS
from .io import SafetensorsFile
from .on_demand import OnDemand

__all__ = ["AdapterFile", "Rename"]


MOST_TENSORS = 100_000
"""How many tensors a file may have; real ones have up to some 10,000. Each costs about 1 kB of memory and 50 µs."""


Rename = Callable[[dict[str, Tensor]], dict[str, Tensor]]
"""All tensors of a file by key -> the same by other keys."""


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
                _check_all(keys, tensors.__getitem__)
            return found if outline is None else named_as(found, outline)

    def on_demand(self, outline: AdapterSet) -> Mapping[str, Adapter]:
        """The adapters of an outline, each read when it is asked for, also after the file is closed.

        To ask raises `LycoError` where the file is not what it was when it was opened. What is no number is not looked
        for: see `require_finite`.

        Args:
            outline: this file's, identified; of what it has twice, numbers decide which counts: `read` it.
        """
        of_module = ModuleParser(self._file.header.metadata, self._config)

        def read(path: str) -> Adapter:
            prefix = outline.prefixes[path]
            keys = self.keys.modules[prefix]
            with about_file(self.path):
                with self._file.again() as file:
                    tensors = {suffix: file.tensor(key) for suffix, key in keys.items()}
                    file.require_unchanged()
                module, built = of_module(prefix, tensors)
                adapters = {module + parameter: adapter for parameter, adapter in built.items()}
                prefixes = dict.fromkeys(adapters, prefix)
                found = AdapterSet(adapters, prefixes, outline.format, outline.metadata, keys={prefix: keys})
                return part_named_as(found, outline).adapters[path]

        return OnDemand(outline.adapters, read)

    def require_finite(self) -> None:
        """Look through all tensors, without keeping them, whether the file is still open or not.

        Raises:
            AdapterError: a number is NaN or infinite.
            FileError: the file is not what it was, or is larger than any adapter.
        """
        with about_file(self.path), self._file.again() as file:
            file.require_memory()
            if not file.finite():
                _check_all(self.keys, file.tensor)

    def require_unchanged(self) -> None:
        """Raise `FileError` if the file is not what it was when it was opened, whether it is still open or not."""
        with self._file.again():
            pass

    def _small(self, key: str) -> Tensor:
        """A single number as it is, and the outline of any other tensor."""
        number = split_key(key)[1] in NUMBERS and self._file.header.tensors[key].bytes <= 8
        return self._file.tensor(key) if number else self._file.outline(key)


def _require_few(file: SafetensorsFile) -> None:
    count = len(file.header.tensors)
    if count > MOST_TENSORS:
        raise FileError(f"holds {count} tensors, expected an adapter's at most {MOST_TENSORS}; is it one?")


def _check_all(keys: Keys, tensor: Callable[[str], Tensor]) -> None:
    for key in keys.of_factors:
        check_finite(key, tensor(key))


def _renamed(tensors: dict[str, Tensor], rename: Rename) -> dict[str, Tensor]:
    try:
        return rename(tensors)
    except Exception as error:  # the host's own, which takes for granted what a known trainer writes
        raise FormatError(
            f"its keys look like a trainer's whose files the host renames, and lack what those have "
            f"({type(error).__name__}: {error}); the file is incomplete"
        ) from None
