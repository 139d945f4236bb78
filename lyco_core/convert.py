"""Another layout, losslessly: names change, rows are cut or stacked, and nothing is rounded unasked."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from .adapter_file import stored_as, write_adapters
from .adapter_set import AdapterSet
from .adapters import ALGORITHMS, LOW_RANK, Adapter, DoRA, LoKr, LoRA
from .adapters.stack import stacked
from .architectures import Architecture, identify
from .compress.lora import best_lora
from .compress.options import RankTooSmall
from .conversion import Conversion, Converted, Options
from .devices import norm
from .emit import Entry, bare, in_layout, prefix_of
from .errors import AdapterError, LycoError, PlacementError, Remedy, about_file
from .formats import FORMATS
from .formats.peft import ADAPTER_METADATA
from .io import is_same_file, refuse_existing, sshs_hashes
from .layouts import LAYOUTS, parameter_of
from .load import read_adapter_set, require_known
from .placed import Placed
from .placement import Placement, place
from .version import __version__

__all__ = ["convert_file", "convert_set"]

Progress = Callable[[int, int], None]


def convert_file(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    options: Options,
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
        found = identify(read_adapter_set(source), architecture=architecture, layout=options.to)
        conversion = convert_set(
            require_known(found), options, name=os.path.basename(os.fspath(source)), progress=progress
        )
    write_adapters(output, conversion.tensors, conversion.metadata, overwrite=overwrite)
    return conversion


def convert_set(
    found: AdapterSet, options: Options, *, name: str = "", progress: Progress = lambda done, total: None
) -> Conversion:
    """The tensors and metadata of `found` in another layout.

    Raises:
        PlacementError: a module has no place in the layout, or cannot be expressed there.
    """
    placement = _placement(found, options)
    found = placement.adapter_set
    exact = _modules(placement, options)
    _require_musubis_own(found, options)
    if options.to == "musubi" and not (options.as_lora or options.asked):
        exact = _uniform(exact)
    modules: list[Converted] = []
    needed: dict[str, int] = {}
    for done, module in enumerate(exact, 1):
        try:
            modules.append(_as_asked(module, found, options))
        except RankTooSmall as error:
            needed[module.sources[0]] = error.needed
        progress(done, len(exact))
    if options.asked is not None:
        options.asked.require(needed, {m.module_path: m.error or 0.0 for m in modules})
    entries = [Entry(m.module_path, m.adapter, _alpha(found, m, options)) for m in modules]
    tensors, config = in_layout(entries, _family(found), options.to)
    metadata = _metadata(found, modules, options, name) | config
    return Conversion(found, tuple(modules), tensors, metadata | sshs_hashes(tensors, metadata))


def _family(found: AdapterSet) -> Architecture:
    assert found.architecture is not None  # see `require_known`
    return found.architecture


def _placement(found: AdapterSet, options: Options) -> Placement:
    """Where all of it goes in the new file."""
    architecture = _family(found)
    layout = options.to
    if layout == "comfyui" and found.layout != "comfyui":
        layout = architecture.comfyui_takes
    placement = place(found, layout=layout, prefix="")
    if not placement.complete:
        others = _what_would_work(architecture, placement)
        raise PlacementError(placement.problem(), Remedy.OTHER_LAYOUT if others else None, others)
    return placement


def _modules(placement: Placement, options: Options) -> list[Converted]:
    """The modules of the new file, exact."""
    found = placement.adapter_set
    adapters = _with_uncut_as_lora(found, placement)
    return [
        _converted(key.removesuffix(".weight"), [placed for placed, _ in changes], found, adapters, options)
        for key, changes in placement.by_weight.items()
    ]


def _what_would_work(architecture: Architecture, placement: Placement) -> str:
    """The layouts that have a place for what this one has none for."""
    source = placement.adapter_set.layout
    paths = [p for p in placement.homeless if source and architecture.resolve(p, source, underscored=False)]
    if source is None or not paths or len(paths) < len(placement.homeless):
        return ""
    others = [layout for layout in LAYOUTS if all(architecture.locate(path, source, layout) for path in paths)]
    return " or ".join(others)


def _with_uncut_as_lora(found: AdapterSet, placement: Placement) -> dict[str, Adapter]:
    """The adapters, with the LoRA, made once, in place of each that must be cut and cannot."""
    adapters = dict(found.adapters)
    for piece in placement.placed:
        adapter = adapters[piece.module_path]
        if piece.source_rows is not None and adapter.rows(*piece.source_rows) is None:
            adapters[piece.module_path] = adapter.to_lora() or adapter
    return adapters


def _converted(
    path: str, pieces: list[Placed], found: AdapterSet, adapters: Mapping[str, Adapter], options: Options
) -> Converted:
    sources = tuple(piece.module_path for piece in pieces)
    whole = len(pieces) == 1 and pieces[0].rows is None
    how, adapter = "renamed", adapters[sources[0]]
    if whole and pieces[0].source_rows is not None:
        adapter = pieces[0].part(adapter)
        how = "cut" if adapter.algorithm == found.adapters[sources[0]].algorithm else f"as {adapter.title}"
    elif not whole:
        parts = [((piece.rows or (0, 0))[0], piece.part(adapters[piece.module_path])) for piece in pieces]
        fused = stacked(parts, pieces[0].shape[0])
        if fused is None:
            on_base = any(part.needs_base for _, part in parts)
            raise PlacementError(
                f"{', '.join(sources)}: cannot be one module, {path}, as the {options.to} layout wants it"
                + ("; load it onto the model, or merge it" if on_base else ""),
                None if on_base else Remedy.AS_LORA,
            )
        kinds = {part.algorithm for _, part in parts}
        adapter, how = fused, "stacked" if kinds == {fused.algorithm} else f"as {fused.title}"
    return Converted(path, sources, adapter, how)


def _as_asked(module: Converted, found: AdapterSet, options: Options) -> Converted:
    """The module as a LoRA, of less rank or in another dtype, where that is asked for."""
    exact = module.adapter
    made: Adapter | None = exact
    how = module.how
    try:
        if options.asked is not None:
            asked = options.asked.before_rounding(options.dtype or torch.float32)
            made, how = best_lora(exact, asked), "approximated"
        elif options.as_lora and not isinstance(exact, LoRA):
            made, how = exact.to_lora(), "as LoRA"
    except RankTooSmall:
        raise
    except AdapterError as error:
        raise error.within(module.sources[0]) from None
    if made is None:
        what = f"{module.sources[0]}: a {exact.title} has no exact LoRA"
        if exact.needs_base:
            raise PlacementError(f"{what}; its change depends on the weight")
        raise PlacementError(what, Remedy.RANK)
    if isinstance(made, DoRA) and made.axis == 1 and FORMATS[options.to].peft:
        raise PlacementError(
            f"{module.sources[0]}: its DoRA magnitude is along the inputs, diffusers knows the outputs' only; "
            "convert to another layout"
        )
    prefix = prefix_of(_family(found), options.to, parameter_of(module.module_path)[0])
    made = stored_as(made, options.dtype, prefix, peft=FORMATS[options.to].peft)
    if options.asked is None and options.dtype is None:
        return dataclasses.replace(module, adapter=made, how=how)
    error, norm = _error(bare(made), bare(exact))
    return dataclasses.replace(module, adapter=made, how=how, error=error, norm=norm)


def _error(made: Adapter, exact: Adapter) -> tuple[float, float]:
    """Relative error of ΔW, of a DoRA's before its norms, and the norm that it is relative to."""
    delta = exact.delta_weight()
    whole = norm(delta)
    made.add_to_(delta, -1.0)
    return norm(delta) / (whole or 1.0), whole


def _alpha(found: AdapterSet, module: Converted, options: Options) -> Tensor | None:
    """The alpha to write: the file's own tensor where it still holds, else in the smallest exact dtype."""
    path, alpha = module.sources[0], module.adapter.alpha
    kept = found.alpha_tensors.get(path)
    if kept is not None and options.dtype is None and _same_number(alpha, found.adapters[path].alpha):
        return kept
    if alpha is None and options.to == "musubi" and (inner := bare(module.adapter)).algorithm in LOW_RANK:
        alpha = float(inner.rank or max(inner.tensors["w2"].shape))
    if alpha is None:
        return None
    exact = torch.tensor(alpha, dtype=module.adapter.dtype)
    return exact if _same_number(float(exact), alpha) else torch.tensor(alpha)


def _same_number(a: float | None, b: float | None) -> bool:
    return a == b or (a is not None and b is not None and math.isnan(a) and math.isnan(b))


def _metadata(found: AdapterSet, modules: list[Converted], options: Options, name: str) -> dict[str, str]:
    """The file's own, and what was done."""
    kept = {k: v for k, v in found.metadata.items() if k not in (ADAPTER_METADATA, "lyco_conversion")}
    record = {
        "version": __version__,
        "source": name,
        "from": {"format": found.format.id if found.format else "unknown", "layout": found.layout},
        "to": options.to,
        "modules": dict(Counter(m.how for m in modules)),
    }
    kept["lyco_architecture"] = _family(found).id
    kept["lyco_conversion"] = json.dumps(record, sort_keys=True)
    return kept


def _require_musubis_own(found: AdapterSet, options: Options) -> None:
    """Refuse for Musubi Tuner what it would read only half: it ignores the tensors that it does not know."""
    family = _family(found)
    if options.to != "musubi" or not family.target_blocks:
        return
    if other := next((p for p, a in found.adapters.items() if a.algorithm not in LOW_RANK), None):
        raise PlacementError(
            f"{found.prefixes[other]}: is a {found.adapters[other].title}, and Musubi Tuner reads LoRA, LoHa and LoKr "
            "only",
            Remedy.LAYOUT,
            "comfyui or diffusers",
        )


def _uniform(modules: list[Converted]) -> list[Converted]:
    """Musubi reads one algorithm a file, and no LoKr with a low-rank w1: the smaller form that suits all."""
    native = {m.adapter.algorithm for m in modules}
    if len(native) == 1 and not any(isinstance(m.adapter, LoKr) and m.adapter.w1 is None for m in modules):
        return modules
    forms: list[list[Converted]] = []
    for kind in ("loha", "lora"):
        adapters = [m.adapter if m.adapter.algorithm == kind else getattr(m.adapter, f"to_{kind}")() for m in modules]
        if None not in adapters:
            title = f"as {ALGORITHMS[kind].title}"
            forms.append(
                [
                    m if a is m.adapter else dataclasses.replace(m, adapter=a, how=title)
                    for m, a in zip(modules, adapters, strict=True)
                ]
            )
    if not forms:
        raise PlacementError("its modules are of several algorithms, and Musubi reads one a file", Remedy.AS_LORA)
    return min(forms, key=lambda form: sum(t.nbytes for m in form for t in m.adapter.tensors.values()))
