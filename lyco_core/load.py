"""From a file to an `AdapterSet` with its architecture told: as an outline, or with its tensors."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, TypedDict

import torch
from torch import Tensor

from .adapter_set import AdapterSet
from .architectures import ARCHITECTURES, identify
from .errors import AdapterError, ArchitectureError, FileError, FormatError, about_file, shorten
from .formats import FORMATS, parse, split_key
from .formats.peft import read_config
from .formats.suffixes import NUMBERS
from .io import SafetensorsFile
from .layouts import Layout
from .model_weights import describe_weights

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = [
    "Identifying",
    "check_finite",
    "checkpoint_of",
    "load_adapter_set",
    "outline_adapter_set",
    "read_adapter_set",
    "read_outline",
    "require_known",
]


MOST_TENSORS = 100_000
"""Of an adapter; real ones have up to some 10,000, and each costs about 1 kB of memory and 50 µs."""


class Identifying(TypedDict, total=False):
    """The named arguments of `architectures.identify`."""

    architecture: str | None
    weights: Collection[str] | None
    prefer: str | None
    layout: Layout


def outline_adapter_set(path: str | os.PathLike[str], **identifying: Unpack[Identifying]) -> AdapterSet:
    """The adapters of a file without their numbers: tensors on the meta device, only alphas read.

    Everything that shapes tell (architecture, ranks, placement) is there in milliseconds.

    Args:
        identifying: see `architectures.identify`.

    Raises:
        LycoError: what is wrong with the file, naming it.
    """
    with about_file(path):
        return identify(read_outline(path), **identifying)


def read_outline(path: str | os.PathLike[str]) -> AdapterSet:
    """As `outline_adapter_set`, before the architecture is told."""
    with about_file(path), SafetensorsFile(path) as file:
        _require_few(file)
        tensors = {
            key: file.tensor(key) if split_key(key)[1] in NUMBERS and info.bytes <= 8 else file.outline(key)
            for key, info in file.header.tensors.items()
        }
        return parse(tensors, file.header.metadata, read_config(path))


def load_adapter_set(path: str | os.PathLike[str], **identifying: Unpack[Identifying]) -> AdapterSet:
    """The adapters of a file, their tensors read and checked; arguments as `outline_adapter_set`'s.

    Raises:
        LycoError: what is wrong with the file, naming it; NaN or Inf in a tensor too.
    """
    with about_file(path):
        return identify(read_adapter_set(path), **identifying)


def read_adapter_set(
    path: str | os.PathLike[str], rename: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None
) -> AdapterSet:
    """As `load_adapter_set`, before the architecture is told: modules as the file spells them.

    Args:
        rename: a host's own change of keys, made before they are parsed.
    """
    with about_file(path), SafetensorsFile(path) as file:
        _require_few(file)
        file.require_memory()
        tensors = {key: file.tensor(key) for key in file.header.tensors}
        tensors = tensors if rename is None else _renamed(tensors, rename)
        adapter_set = parse(tensors, file.header.metadata, read_config(path))
        left_out = adapter_set.unrecognised.keys() | adapter_set.foreign.keys()
        for key, tensor in tensors.items():
            if key not in left_out and split_key(key)[1] not in NUMBERS:
                check_finite(key, tensor)
        return adapter_set


def _require_few(file: SafetensorsFile) -> None:
    count = len(file.header.tensors)
    if count > MOST_TENSORS:
        raise FileError(f"holds {count} tensors, expected an adapter's at most {MOST_TENSORS}; is it one?")


def _renamed(tensors: dict[str, Tensor], rename: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> dict[str, Tensor]:
    try:
        return rename(tensors)
    except Exception as error:  # the host's own, which takes for granted what a known trainer writes
        raise FormatError(
            f"its keys look like a trainer's whose files the host renames, and lack what those have "
            f"({type(error).__name__}: {error}); the file is incomplete"
        ) from None


def check_finite(key: str, tensor: Tensor) -> None:
    """Raise `AdapterError` naming `key` if a number in `tensor` is NaN or infinite."""
    numbers = tensor if tensor.element_size() in (2, 4) else tensor.to(torch.float32)
    # A sum is finite only if every term is, and is much the faster test.
    if bool(torch.isfinite(numbers.sum(dtype=torch.float32))):
        return
    bad = int((~torch.isfinite(numbers)).sum())
    if bad:
        raise AdapterError(
            f"{key}: {bad} of its {tensor.numel()} numbers are NaN or infinite; "
            "training diverged or the file is damaged, use an earlier save"
        )


def require_known(adapter_set: AdapterSet) -> AdapterSet:
    """Itself, or an error if it holds no adapters, or those of an unknown format or architecture."""
    known = "; ".join(f.title for f in FORMATS.values())
    if not adapter_set.adapters and adapter_set.idle:
        raise FormatError(f"holds nothing that changes a model: {'; '.join(adapter_set.left_out)}")
    if not adapter_set.adapters:
        keys = [*adapter_set.unrecognised_keys, *adapter_set.foreign]
        what = checkpoint_of(adapter_set) or (f"keys like {shorten(keys)}" if keys else "no tensors")
        raise FormatError(f"holds no adapter; found {what}; expected one of: {known}")
    if adapter_set.format is None:
        prefixes = shorten(list(adapter_set.prefixes.values()))
        raise FormatError(f"its modules are spelled in an unknown way ({prefixes}); expected one of: {known}")
    if adapter_set.architecture is None:
        prefixes = shorten(list(adapter_set.prefixes.values()))
        titles = ", ".join(a.title for a in ARCHITECTURES.values() if not a.refused)
        raise ArchitectureError(f"its modules are of no known architecture ({prefixes}); known are {titles}")
    return adapter_set


def checkpoint_of(adapter_set: AdapterSet) -> str | None:
    """What model the keys of a file without adapters are the weights of, if they are a model's."""
    architecture = describe_weights({key: tuple(t.shape) for key, t in adapter_set.unrecognised.items()}).architecture
    return None if architecture is None else f"the weights of a {architecture.title} model"
