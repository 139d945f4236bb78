"""An adapter file of less rank: every module keeps its algorithm, its keys' spelling and its scale's meaning."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from ..adapter_reader import AdapterFile, require_adapters
from ..adapter_set import AdapterSet
from ..adapter_writer import save_adapter_set, stored_as
from ..adapters import LOW_RANK, Adapter, bare, with_alpha
from ..architectures import identify
from ..errors import AdapterError, ArchitectureError, LycoError, about_file
from ..formats import split_key
from ..formats.grammar import underscored
from ..io import SafetensorsFile, is_same_file, refuse_existing
from ..layouts import BIAS
from ..placement import place
from ..version import __version__
from .less_rank import resized
from .options import Limits, RankTooSmall
from .report import Measured, Report

__all__ = ["resize_file"]

Progress = Callable[[int, int], None]


def resize_file(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    limits: Limits,
    *,
    dtype: torch.dtype | None = None,
    overwrite: bool = False,
    progress: Progress = lambda done, total: None,
) -> Report:
    """Write the adapters of a file with less rank. What is small enough is copied as it is.

    Args:
        dtype: of what is resized; by default each module's own.
        progress: called with the modules that are done and all there are; what it raises ends it.

    Raises:
        LycoError: the file is bad, nothing of it can be smaller, or the output cannot be written.
    """
    with about_file(output):
        refuse_existing(output, overwrite=overwrite)
    with about_file(source):
        if is_same_file(source, output):
            raise LycoError("is both the input and the output; give the output another name")
        with AdapterFile(source) as file:
            require_adapters(file.outline)  # before the numbers of a whole model are read
            found = _once(file.read())
        smaller, report = _all_resized(found, limits, dtype, progress)
        if not smaller:
            raise LycoError("nothing in it can be made smaller as asked; it would be the same file")
        with SafetensorsFile(source) as file:
            tensors = {key: file.tensor(key) for key in file.header.tensors}
        made = _with_smaller(found, smaller, tensors)
        record: dict[str, object] = {"version": __version__, "source": os.path.basename(source), "error": report.error}
        metadata = {"lyco_resize": json.dumps(record, sort_keys=True)} | _network_metadata(found, smaller.values())
        save_adapter_set(made, output, overwrite=overwrite, metadata=metadata)
    return report


def _once(found: AdapterSet) -> AdapterSet:
    """The set without the modules that are there under another layout's names too."""
    try:
        identified = identify(found)
    except ArchitectureError:  # its names are those of several families: where they lie is not known
        return found
    twice = {p: why for p, why in place(identified).adapter_set.idle.items() if p not in found.idle}
    return found.without(
        {path: twice[found.prefixes[path]] for path in found.adapters if found.prefixes[path] in twice}
    )


def _all_resized(
    found: AdapterSet, limits: Limits, dtype: torch.dtype | None, progress: Progress
) -> tuple[dict[str, Adapter], Report]:
    """What becomes smaller, as it will be stored, by module path."""
    made: dict[str, Adapter] = {}
    modules: list[Measured] = []
    needed: dict[str, int] = {}
    for done, (path, adapter) in enumerate(found.adapters.items()):
        progress(done, len(found.adapters))
        stored = dtype or adapter.dtype
        try:
            smaller = resized(adapter, limits.before_rounding(stored))
        except RankTooSmall as error:
            needed[found.prefixes[path]] = error.needed
            continue
        except AdapterError as error:
            raise AdapterError(f"{found.prefixes[path]}: {error}") from None
        if smaller is not None:
            made[path] = stored_as(smaller, stored, found.prefixes[path])
            modules.append(Measured.of(path, made[path], adapter))
    progress(len(found.adapters), len(found.adapters))
    limits.require(needed, modules)
    return made, Report(tuple(modules), exact=len(found.adapters) - len(modules))


def _with_smaller(found: AdapterSet, smaller: Mapping[str, Adapter], tensors: Mapping[str, Tensor]) -> AdapterSet:
    """What is written anew, and beside it all else of the file, whose `tensors` stay as they are.

    Where a configuration of PEFT's scales the file, it cannot stand beside new ranks: all that it
    scaled is written anew.
    """
    peft = found.format is not None and found.format.peft
    scaled = [
        path
        for path, adapter in found.adapters.items()
        if peft and bare(adapter).algorithm in LOW_RANK and path not in found.alpha_tensors
    ]
    anew = {path: smaller.get(path, found.adapters[path]) for path in dict.fromkeys([*scaled, *smaller])}
    for path, adapter in anew.items():
        if path not in found.alpha_tensors and adapter.scale == 1:
            # Elsewhere its file had none and needs none; a configuration beside the new file leaves alone what has one.
            anew[path] = with_alpha(adapter, float(adapter.rank or 1) if peft else None)
    biases = {path + BIAS: found.adapters[path + BIAS] for path in anew if path + BIAS in found.adapters}
    # Also what counts for nothing, and is not half of a module that does: beside it it might contradict.
    idle = found.idle.keys() - set(found.prefixes.values())
    replaced = {underscored(prefix) for prefix in (*(found.prefixes[path] for path in anew), *idle)}
    kept = {key: tensor for key, tensor in tensors.items() if underscored(split_key(key)[0]) not in replaced}
    return dataclasses.replace(found, adapters=anew | biases, unrecognised=kept)


def _network_metadata(found: AdapterSet, smaller: Iterable[Adapter]) -> dict[str, str]:
    """What became wrong of the file's own, mended."""
    if "ss_network_dim" not in found.metadata:
        return {}
    rank = max(adapter.rank or 0 for adapter in smaller)
    return {"ss_network_dim": str(rank), "ss_network_alpha": "Dynamic"}
