"""Another layout, losslessly: names change, rows are cut or stacked, and nothing is rounded unasked."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Mapping

from torch import Tensor

from .adapter_set import AdapterSet
from .adapters import ALGORITHMS, LOW_RANK, Adapter, DoRA, LoKr, LoRA
from .adapters.stack import stacked
from .architectures import ARCHITECTURES, Architecture, identify
from .compress.lora import best_lora
from .conversion import Conversion, Converted, Options
from .delta import by_key
from .emit import fields_of, metadata_of, prefix_of, without_magnitude
from .errors import AdapterError, LycoError, PlacementError, Remedy, about_file
from .formats import FORMATS
from .formats.suffixes import BIAS_SUFFIX, suffix_of
from .io import TensorSpec, library_order, refuse_existing, sshs_hashes, write_safetensors
from .layouts import BIAS, LAYOUTS, parameter_of
from .load import read_adapter_set, require_known
from .placement import Placed, Placement, place

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
        if os.path.exists(output) and os.path.samefile(source, output):
            raise LycoError("is both the input and the output; give the output another name")
        found = identify(read_adapter_set(source), architecture=architecture, layout=options.to)
        conversion = convert_set(
            require_known(found), options, name=os.path.basename(os.fspath(source)), progress=progress
        )
    specs = library_order([TensorSpec(key, tuple(t.shape), t.dtype) for key, t in conversion.tensors.items()])
    tensors = (conversion.tensors[spec.key] for spec in specs)
    write_safetensors(output, specs, tensors, conversion.metadata, overwrite=overwrite)
    return conversion


def convert_set(
    found: AdapterSet, options: Options, *, name: str = "", progress: Progress = lambda done, total: None
) -> Conversion:
    """The tensors and metadata of `found` in another layout.

    Raises:
        PlacementError: a module has no place in the layout, or cannot be expressed there.
    """
    exact = _modules(found, options)
    _require_musubis_own(found, options)
    if options.to == "musubi" and not (options.as_lora or options.approximate):
        exact = _uniform(exact)
    modules: list[Converted] = []
    for module in exact:
        modules.append(_as_asked(module, options))
        progress(len(modules), len(exact))
    form = FORMATS[options.to]
    # A file of LoRA alone is PEFT's own, and PEFT knows no alpha tensors.
    peft = form.peft and all(isinstance(without_magnitude(m), LoRA) for m in modules)
    tensors: dict[str, Tensor] = {}
    for module in modules:
        path, parameter = parameter_of(module.module_path)
        prefix = prefix_of(found, options, path)
        for (algorithm, field), tensor in fields_of(found, module, options, alphas_in_metadata=peft).items():
            suffix = BIAS_SUFFIX if parameter == BIAS else suffix_of(algorithm, field, peft=form.peft)
            tensors[f"{prefix}.{suffix}"] = tensor
    metadata = metadata_of(found, modules, options, name, peft=peft)
    return Conversion(found, tuple(modules), tensors, metadata | sshs_hashes(tensors, metadata))


def _modules(found: AdapterSet, options: Options) -> list[Converted]:
    """The modules of the new file, exact."""
    architecture = ARCHITECTURES[found.architecture or ""]
    layout = options.to
    if layout == "comfyui" and found.layout != "comfyui":
        layout = architecture.comfyui_takes
    placement = place(found, layout=layout, prefix="")
    if not placement.complete:
        others = _what_would_work(architecture, placement)
        raise PlacementError(placement.problem(), Remedy.OTHER_LAYOUT if others else None, others)
    adapters = _with_uncut_as_lora(found, placement)
    return [
        _converted(key.removesuffix(".weight"), pieces, found, adapters, options)
        for key, pieces in by_key(placement).items()
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
            raise PlacementError(
                f"{', '.join(sources)}: cannot be one module, {path}, as the {options.to} layout wants it",
                Remedy.AS_LORA,
            )
        kinds = {part.algorithm for _, part in parts}
        adapter, how = fused, "stacked" if kinds == {fused.algorithm} else f"as {fused.title}"
    return Converted(path, sources, adapter, how)


def _as_asked(module: Converted, options: Options) -> Converted:
    """The module as a LoRA, of less rank or in another dtype, where that is asked for."""
    exact = module.adapter
    made: Adapter | None = exact
    how = module.how
    try:
        if options.approximate:
            made, how = best_lora(exact, rank=options.rank, max_error=options.max_error), "approximated"
        elif options.as_lora and not isinstance(exact, LoRA):
            made, how = exact.to_lora(), "as LoRA"
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
    made = made.to(dtype=options.dtype)
    if not options.approximate and options.dtype is None:
        return dataclasses.replace(module, adapter=made, how=how)
    error, norm = _error(made, exact)
    return dataclasses.replace(module, adapter=made, how=how, error=error, norm=norm)


def _error(made: Adapter, exact: Adapter) -> tuple[float, float]:
    """Relative error of ΔW, and the norm that it is relative to."""
    delta = exact.delta_weight()
    norm = math.sqrt(float(delta.double().square().sum()))
    made.add_to_(delta, -1.0)
    return math.sqrt(float(delta.double().square().sum())) / (norm or 1.0), norm


def _require_musubis_own(found: AdapterSet, options: Options) -> None:
    """Refuse for Musubi Tuner what it would read only half: it ignores the tensors that it does not know."""
    family = ARCHITECTURES[found.architecture or ""]
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
