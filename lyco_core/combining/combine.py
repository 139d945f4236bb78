"""A combination from end to end: read, place, make each module of all that change it, write."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

from ..adapter_set import AdapterSet
from ..adapter_writer import save_adapter_set
from ..adapters import ANY, Adapter
from ..approximate.options import RankTooSmall
from ..conversion import ConvertOptions, convert_set
from ..errors import LycoError, PlacementError, Remedy, about_file
from ..formats import FORMATS, Format, format_of, spelled
from ..formats.grammar import is_text_encoders
from ..io import refuse_existing
from ..io.output import refuse_inputs
from ..text import counted, shorten, size_text
from .average import of_one_training
from .base import Base
from .modules import Modules
from .options import Addend, CombineOptions
from .record import combined_metadata
from .result import Combination, Combined
from .sources import Opened, open_all

__all__ = ["combine_files", "require_one_width"]

MOST_EXACT = 4 * 10**9
"""Bytes that an exact sum may take: all of it is in memory before it is written."""

Progress = Callable[[int, int], None]


def combine_files(
    addends: Sequence[Addend],
    output: str | os.PathLike[str],
    options: CombineOptions,
    *,
    overwrite: bool = False,
    progress: Progress = lambda done, total: None,
) -> Combination:
    """Write one adapter file that does what all of `addends` do together; nothing is left unless all of it is written.

    Memory holds the adapters, and of one module what it takes to combine it.

    Args:
        progress: called with the modules that are done and all there are; what it raises ends it.

    Raises:
        LycoError: a file is bad, does not fit the others, nothing would be left, or the output cannot be written.
    """
    with about_file(output):
        refuse_existing(output, overwrite=overwrite)
    refuse_inputs(output, [addend.source.path for addend in addends if addend.adapters is None])
    opened = _opened(addends, options)
    with ExitStack() as stack:
        combination = _combined(opened, options, stack, progress)
    with about_file(output):
        save_adapter_set(combination.adapter_set, output, overwrite=overwrite)
    return combination


def _opened(addends: Sequence[Addend], options: CombineOptions) -> list[Opened]:
    """The files that take part, on their places. Raises `LycoError` if there are too few, or none fits."""
    if not addends:
        raise LycoError("there is no adapter to combine; name at least one")
    if options.method == "slerp" and len(addends) != 2:
        raise LycoError(f"slerp goes from one adapter to another, and there are {len(addends)}; give two")
    if options.method == "slerp" and min(addend.source.strength for addend in addends) < 0:
        raise LycoError("slerp takes strengths for shares, which are not below 0; give two of 0 or more")
    shares = [addend.source.strength for addend in addends]
    if options.average is not None:
        if any(strength != 1 for strength in shares):
            raise LycoError("an average gives each checkpoint its share; leave the strengths at 1")
        shares = options.average.shares(len(addends))
    if not any(shares):
        raise LycoError("all strengths are 0, so nothing would be changed; give one that is not")
    opened = open_all(addends, shares, options)
    require_one_width(opened)
    return opened


def require_one_width(opened: Sequence[Opened]) -> None:
    """Raise `PlacementError` if two files change a module in two shapes: those of two sizes of the model."""
    seen: dict[str, tuple[tuple[int, ...], str]] = {}
    for one in opened:
        for path, changes in one.changes.items():
            shape = changes[0][0].shape
            first, name = seen.setdefault(path, (shape, one.name))
            if not _alike(first, shape):
                with about_file(one.addend.source.path):
                    raise PlacementError(
                        f"{path}: changes a weight of {list(shape)}, and {name} one of {list(first)}; they are for "
                        "models of two sizes, give adapters of one"
                    )


def _alike(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether both are shapes of one weight; a kernel may be flattened into the columns."""
    if ANY in one or ANY in other:
        return all(a == b or ANY in (a, b) for a, b in zip(one, other, strict=False))
    sizes = [shape[0] for shape in (one, other)], [_size(shape) for shape in (one, other)]
    return sizes[0][0] == sizes[0][1] and sizes[1][0] == sizes[1][1]


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for n in shape:
        size *= n
    return size


def _combined(opened: Sequence[Opened], options: CombineOptions, stack: ExitStack, progress: Progress) -> Combination:
    first = opened[0].adapter_set
    family, layout = first.architecture, opened[0].layout
    assert family is not None
    base = None if options.base is None else stack.enter_context(Base(options.base, family, layout))
    on_factors = _on_factors(opened, options)
    modules = Modules(opened, options, base, on_factors=on_factors)
    made: list[Combined] = []
    needed: dict[str, int] = {}
    cancelled, size = 0, 0
    for done, path in enumerate(modules.paths):
        progress(done, len(modules.paths))
        try:
            module = modules.make(path)
        except RankTooSmall as error:
            needed[path] = error.needed
            continue
        if module is None:
            cancelled += 1
            continue
        made.append(module)
        size += sum(t.nbytes for t in module.adapter.tensors.values())
        if size > MOST_EXACT:
            raise LycoError(
                f"the exact sum takes more than {size_text(MOST_EXACT)}; say how small it is to be", Remedy.SMALLNESS
            )
    progress(len(modules.paths), len(modules.paths))
    if options.limits is not None:
        options.limits.require(needed, [m.measured for m in made if m.measured is not None])
    if not made:
        raise LycoError("the strengths cancel, so nothing would be changed; give others")
    averaged = all(m.averaged for m in made)
    metadata = combined_metadata(opened, options, [m.adapter for m in made], same_form=averaged)
    named = _named({m.path: m.adapter for m in made}, opened, options, metadata)
    sources = [(one.name, one.strength, len(one.paths)) for one in opened]
    notes = _notes(made, options)
    method = options.method if options.average is None else f"{options.average.kind} average"
    return Combination(named, tuple(made), sources, method, cancelled, notes)


def _on_factors(opened: Sequence[Opened], options: CombineOptions) -> bool:
    """Whether an average is taken on the factors."""
    average = options.average
    if average is None or average.on == "weights":
        return False
    return average.on == "factors" or of_one_training([one.adapter_set.metadata for one in opened])


def _notes(made: Sequence[Combined], options: CombineOptions) -> list[str]:
    if options.average is None:
        return []
    averaged = sum(m.averaged for m in made)
    if averaged == len(made):
        return ["averaged on the factors: the files are of one training"]
    if averaged:
        return [f"{counted(averaged, 'module')} averaged on the factors, {len(made) - averaged} on their changes"]
    return ["averaged on the changes: the files do not say that they are of one training"]


def _named(
    made: Mapping[str, Adapter], opened: Sequence[Opened], options: CombineOptions, metadata: Mapping[str, str]
) -> AdapterSet:
    """The adapters under the result's names."""
    first = opened[0].adapter_set
    assert first.format is not None
    encoders = {path: one.adapter_set.prefixes[path] for one in opened for path in one.encoders if path in made}
    ours = {path: adapter for path, adapter in made.items() if path not in encoders}
    names, family = {path: path for path in ours}, first.architecture
    named = AdapterSet(ours, names, FORMATS["bare"], metadata, architecture=family, layout=opened[0].layout)
    if options.to is not None:
        if encoders:
            raise PlacementError(
                f"{len(encoders)} modules are the text encoder's ({shorten(list(encoders.values()))}), which have no "
                f"name in the {options.to} layout; leave them out, or keep the first file's names"
            )
        wanted = ConvertOptions(options.to, as_lora=options.form == "lora" and options.limits is None)
        return dataclasses.replace(convert_set(named, wanted).adapter_set, metadata=metadata)
    named = spelled(named, first.format)
    _require_spelling(encoders, first.format)
    adapters = {**named.adapters, **{path: made[path] for path in encoders}}
    return dataclasses.replace(named, adapters=adapters, prefixes={**named.prefixes, **encoders})


def _require_spelling(encoders: Mapping[str, str], format: Format) -> None:
    """Raise `PlacementError` if a text encoder's modules are spelled otherwise than the first file's."""
    other = [prefix for prefix in encoders.values() if format_of(prefix) is not format and is_text_encoders(prefix)]
    if other:
        raise PlacementError(
            f"{len(other)} modules of a text encoder ({shorten(other)}) are spelled in another way than the first "
            "file's; convert that file first, or leave them out"
        )
