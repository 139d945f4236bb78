"""A conversion from end to end: read, place, make each module as the options want it, write."""

from __future__ import annotations

import dataclasses
import json
import os
from collections import Counter
from collections.abc import Callable, Sequence

import torch

from ..adapter_reader import read_adapter_set, require_known
from ..adapter_set import AdapterSet
from ..adapter_writer import save_adapter_set, stored_as
from ..adapters import Adapter, LoKr, LoRA, OnBase, bare, to_lora
from ..approximate.lora import best_lora
from ..approximate.options import RankTooSmall
from ..approximate.report import Measured
from ..architectures import identify
from ..errors import AdapterError, LycoError, PlacementError, Remedy, about_file
from ..formats import FORMATS, Format, spelled
from ..io import is_same_file, refuse_existing
from ..version import __version__
from .comfyui import computes
from .diffusers import SINCE, for_diffusers
from .modules import exact_modules, layout_for, placed_in
from .musubi import require_readable, uniform, with_an_alpha
from .options import ConvertOptions
from .result import Conversion, Converted

__all__ = ["RECORD", "convert_adapters", "convert_file", "convert_set"]

RECORD = "lyco_conversion"
"""Key of a new file's metadata: JSON of what it was made of, and how."""

Progress = Callable[[int, int], None]


def convert_file(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    options: ConvertOptions,
    *,
    architecture: str | None = None,
    overwrite: bool = False,
    progress: Progress = lambda done, total: None,
) -> Conversion:
    """Convert one file; nothing is left under `output` unless all of it is.

    Args:
        architecture: the family's id, where the file alone does not decide.
        overwrite: replace a file that is there.
        progress: called with the modules that are done and all there are; what it raises ends the
            conversion.

    Raises:
        LycoError: the file is bad, does not fit the layout, or cannot be written.
    """
    with about_file(output):
        refuse_existing(output, overwrite=overwrite)
    with about_file(source):
        if is_same_file(source, output):
            raise LycoError("is both the input and the output; give the output another name")
        return convert_adapters(
            read_adapter_set(source),
            output,
            options,
            name=os.path.basename(os.fspath(source)),
            architecture=architecture,
            overwrite=overwrite,
            progress=progress,
        )


def convert_adapters(
    found: AdapterSet,
    output: str | os.PathLike[str],
    options: ConvertOptions,
    *,
    name: str,
    architecture: str | None = None,
    overwrite: bool = False,
    progress: Progress = lambda done, total: None,
) -> Conversion:
    """Convert adapters that are read already; arguments and errors as `convert_file`'s.

    Args:
        name: what they are called in the new file's metadata.
    """
    identified = identify(found, architecture=architecture, layout=options.to)
    conversion = convert_set(identified, options, name=name, progress=progress)
    save_adapter_set(conversion.adapter_set, output, overwrite=overwrite)
    return conversion


def convert_set(
    found: AdapterSet, options: ConvertOptions, *, name: str = "", progress: Progress = lambda done, total: None
) -> Conversion:
    """The adapters of a set under another layout's names: the same change.

    Args:
        found: identified.
        name: of its file, for the new one's metadata.
        progress: see `convert_file`.

    Raises:
        PlacementError: a module has no place in the layout, or cannot be expressed there.
    """
    layout = layout_for(require_known(found), options.to)
    placement = placed_in(found, layout, options.selection)
    found, exact = placement.adapter_set, exact_modules(placement, options.to)
    if options.to == "musubi":
        as_lora = options.as_lora or options.limits is not None
        require_readable(found, as_lora=as_lora or options.goes_on)
        exact = exact if as_lora else uniform(exact)
    if options.to == "diffusers" and not (options.as_lora or options.limits):
        exact = for_diffusers(exact, found)
    made = dataclasses.replace(found, adapters={m.module_path: m.adapter for m in exact}, layout=layout, exceptions={})
    made = spelled(made, FORMATS[options.to])
    modules: list[Converted] = []
    needed: dict[str, int] = {}
    for done, module in enumerate(exact, 1):
        try:
            modules.append(_as_wanted(module, made.prefixes[module.module_path], FORMATS[options.to], options))
        except RankTooSmall as error:
            needed[module.sources[0]] = error.needed
        progress(done, len(exact))
    if options.limits is not None:
        options.limits.require(needed, [m.measured for m in modules if m.measured is not None])
    if options.to == "musubi":
        modules = [with_an_alpha(module) for module in modules]
    return Conversion(found, tuple(modules), _filled(made, found, modules, options, name), _note(modules, options))


def _note(modules: Sequence[Converted], options: ConvertOptions) -> str:
    """What of the file is for whom, where not all that go by the layout read it."""
    adapters = [module.adapter for module in modules]
    if options.to == "diffusers" and adapters and all(isinstance(adapter, LoKr) for adapter in adapters):
        return f"LoKr, which diffusers reads since {SINCE}"
    others = sorted({adapter.title for adapter in adapters if not computes(adapter)})
    if options.to == "comfyui" and others:
        return f"{' and '.join(others)}, of which ComfyUI's own loaders make another change"
    return ""


def _as_wanted(module: Converted, prefix: str, format: Format, options: ConvertOptions) -> Converted:
    """The module as a LoRA, of less rank or in another dtype, where the options want it so.

    Args:
        prefix: what its keys will begin with, in `format`.
    """
    exact = module.adapter
    made: Adapter | None = exact
    how = module.how
    try:
        if options.limits is not None:
            limits = options.limits.before_rounding(options.dtype or torch.float32)
            made, how = best_lora(exact, limits), "approximated"
        elif options.as_lora and not isinstance(exact, LoRA):
            made, how = to_lora(exact), "as LoRA"
    except RankTooSmall:
        raise
    except AdapterError as error:
        raise error.within(module.sources[0]) from None
    if made is None:
        what = f"{module.sources[0]}: {exact.title} has no exact LoRA"
        if isinstance(exact, OnBase):
            raise PlacementError(f"{what}; its change depends on the weight")
        raise PlacementError(what, Remedy.RANK)
    if options.dtype is not None and isinstance(bare(exact), OnBase):
        raise PlacementError(
            f"{module.sources[0]}: is {exact.title}, whose change depends on the weight, so the error of another "
            "dtype cannot be measured",
            Remedy.AS_IT_IS,
        )
    made = stored_as(made, options.dtype, prefix, format=format)
    if options.limits is None and options.dtype is None:
        return dataclasses.replace(module, adapter=made, how=how)
    return dataclasses.replace(module, adapter=made, how=how, measured=Measured.of(module.module_path, made, exact))


def _filled(
    made: AdapterSet, found: AdapterSet, modules: Sequence[Converted], options: ConvertOptions, name: str
) -> AdapterSet:
    """The new set with its adapters, the file's own alphas and metadata, and what was done."""
    record = {
        "version": __version__,
        "source": name,
        "from": {"format": found.format.id if found.format else "unknown", "layout": found.layout},
        "to": options.to,
        "modules": dict(Counter(m.how for m in modules)),
    }
    alphas = {m.module_path: found.alpha_tensors.get(m.sources[0]) for m in modules if options.dtype is None}
    return dataclasses.replace(
        made,
        adapters={m.module_path: m.adapter for m in modules},
        alpha_tensors={path: alpha for path, alpha in alphas.items() if alpha is not None},
        metadata={**found.metadata, RECORD: json.dumps(record, sort_keys=True)},
    )
