"""From a file to an identified `AdapterSet`: as an outline, or with its tensors."""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import TYPE_CHECKING, TypedDict

from .adapter_file import AdapterFile, Rename
from .adapter_set import AdapterSet
from .architectures import ARCHITECTURES, identify
from .errors import ArchitectureError, FormatError, Remedy, about_file
from .formats import FORMATS
from .formats.suffixes import unread
from .layouts import Layout
from .model import Model
from .text import shorten

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = [
    "Identifying",
    "checkpoint_of",
    "load_adapter_set",
    "outline_adapter_set",
    "read_adapter_set",
    "require_adapters",
    "require_known",
]


class Identifying(TypedDict, total=False):
    """The named arguments of `architectures.identify`."""

    architecture: str | None
    model_modules: Collection[str] | None
    prefer: str | None
    layout: Layout


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
