"""A combination from end to end: read, place, make each module of all that change it, write."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

from ..adapter_set import AdapterSet
from ..adapter_writer import LetGo, save_adapter_set
from ..adapters import ANY, Adapter
from ..approximate.options import RankTooSmall
from ..conversion import ConvertOptions, convert_set
from ..errors import LycoError, PlacementError, about_file
from ..formats import FORMATS, Format, format_of, spelled
from ..formats.grammar import is_text_encoders
from ..io import refuse_existing
from ..io.output import refuse_inputs
from ..io.spool import Spool
from ..text import counted, shorten
from .average import of_one_training
from .base import Base
from .made import Made
from .modules import Modules
from .options import Addend, CombineOptions
from .record import combined_metadata
from .result import Combination, Combined
from .sources import Opened, open_all

__all__ = ["combine_files", "require_one_width"]

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

    Memory holds of one module what it takes to combine it, and some megabytes of the result. The rest of that lies in a
    nameless file in the output's folder, also as long as somebody keeps the result's tensors.

    Args:
        progress: called with the modules that are done and all there are; what it raises ends it.

    Raises:
        LycoError: a file is bad, does not fit the others, nothing would be left, or the output cannot be written.
    """
    with about_file(output):
        refuse_existing(output, overwrite=overwrite)
    refuse_inputs(output, [addend.source.path for addend in addends if addend.adapters is None])
    opened = _opened(addends, options)
    with Spool(os.path.dirname(os.path.abspath(output))) as spool:
        combination = _combined(opened, options, Made(spool, output), spool.let_go, progress)
        with about_file(output):
            save_adapter_set(combination.adapter_set, output, overwrite=overwrite, let_go=spool.let_go)
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


def _combined(
    opened: Sequence[Opened], options: CombineOptions, made: Made, let_go: LetGo, progress: Progress
) -> Combination:
    """The result.

    Args:
        made: what all modules go to.
        let_go: told of those of them that are done with for a while.
    """
    first = opened[0].adapter_set
    family, layout = first.architecture, opened[0].layout
    assert family is not None
    with ExitStack() as stack:
        base = None if options.base is None else stack.enter_context(Base(options.base, family, layout))
        modules = Modules(opened, options, base, on_factors=_on_factors(opened, options))
        cancelled = _make_all(modules, options, made, progress)
    adapters = {module.path: module.adapter for module in made.modules}
    same_form = all(module.averaged for module in made.modules)
    metadata = combined_metadata(opened, options, list(adapters.values()), same_form=same_form)
    for one in opened:
        one.require_unchanged()
    named = _named(adapters, opened, options, metadata, let_go)
    sources = [(one.name, one.strength, len(one.paths)) for one in opened]
    notes = _notes(made.modules, options)
    method = options.method if options.average is None else f"{options.average.kind} average"
    return Combination(named, tuple(made.modules), sources, method, cancelled, notes)


def _make_all(modules: Modules, options: CombineOptions, made: Made, progress: Progress) -> int:
    """Make every module; how many of them the strengths leave nothing of.

    Raises:
        LycoError: one cannot be combined so or read, nothing is left, or it would be too large.
    """
    needed: dict[str, int] = {}
    cancelled = 0
    for done, path in enumerate(modules.paths):
        progress(done, len(modules.paths))
        try:
            module = modules.make(path)
        except RankTooSmall as error:
            needed[path] = error.needed
            continue
        if module is None:
            cancelled += 1
        else:
            made.add(module)
    progress(len(modules.paths), len(modules.paths))
    if options.limits is not None:
        options.limits.require(needed, [m.measured for m in made.modules if m.measured is not None])
    if not made.modules:
        raise LycoError("the strengths cancel, so nothing would be changed; give others")
    return cancelled


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
    made: Mapping[str, Adapter],
    opened: Sequence[Opened],
    options: CombineOptions,
    metadata: Mapping[str, str],
    let_go: LetGo,
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
        adapters = list(ours.values())

        def done_with(done: int, total: int) -> None:
            for adapter in adapters[done - 1 : done]:
                let_go(adapter.tensors.values())

        return dataclasses.replace(convert_set(named, wanted, progress=done_with).adapter_set, metadata=metadata)
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
