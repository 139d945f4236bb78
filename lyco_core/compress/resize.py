"""An adapter file of less rank: every module keeps its algorithm, its names and its scale's meaning."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable

import torch
from torch import Tensor

from .. import __version__
from ..adapter_set import AdapterSet
from ..adapters import Adapter, DoRA, Full, LoHa, LoKr, LoRA
from ..errors import LycoError, about_file
from ..formats import FORMATS
from ..formats.peft import ADAPTER_METADATA
from ..formats.suffixes import ALPHA, split_key, suffix_of
from ..io import SafetensorsFile, TensorSpec, library_order, refuse_existing, sshs_hashes, write_safetensors
from ..layouts import BIAS
from ..load import read_adapter_set
from .hadamard import nearest_loha
from .lora import best_lora
from .options import Asked
from .report import Module, Report
from .svd import rank_for, truncated

__all__ = ["resize_file", "resized"]

Progress = Callable[[int, int], None]


def resize_file(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    asked: Asked,
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
        if os.path.exists(output) and os.path.samefile(source, output):
            raise LycoError("is both the input and the output; give the output another name")
        found = read_adapter_set(source)
        tensors, replaced, report = _resized_set(found, asked, dtype, progress)
        if not report.modules:
            raise LycoError("nothing in it can be made smaller as asked; it would be the same file")
        with SafetensorsFile(source) as file:
            kept = {key: file.tensor(key) for key in file.header.tensors if _stays(key, replaced)}
    everything = kept | tensors
    metadata = _metadata(found, report, os.path.basename(os.fspath(source)))
    specs = library_order([TensorSpec(key, tuple(t.shape), t.dtype) for key, t in everything.items()])
    data = (everything[spec.key] for spec in specs)
    write_safetensors(output, specs, data, metadata | sshs_hashes(everything, metadata), overwrite=overwrite)
    return report


def _resized_set(
    found: AdapterSet, asked: Asked, dtype: torch.dtype | None, progress: Progress
) -> tuple[dict[str, Tensor], set[str], Report]:
    """New tensors by key, the beginnings of the keys that they replace, and the report."""
    made: dict[str, Tensor] = {}
    replaced: set[str] = set()
    modules: list[Module] = []
    form = FORMATS.get(found.format)
    peft = form is not None and form.peft
    for done, (path, adapter) in enumerate(found.adapters.items()):
        progress(done, len(found.adapters))
        smaller = resized(adapter, asked)
        if smaller is None:
            continue
        smaller = smaller.to(dtype=dtype or adapter.dtype)
        prefix = found.prefixes[path]
        modules.append(_measured(path, _bare(smaller), _bare(adapter)))
        for (algorithm, field), tensor in smaller.stored.items():
            made[f"{prefix}.{suffix_of(algorithm, field, peft=peft)}"] = tensor.contiguous()
        if not (
            peft and isinstance(_bare(smaller), LoRA)
        ):  # PEFT has no alphas among the tensors; this one's scale is 1
            made[f"{prefix}.{ALPHA}"] = torch.tensor(_bare(smaller).alpha)
        if isinstance(bias := found.adapters.get(path + BIAS), Full):
            made[f"{prefix}.diff_b"] = bias.diff
        replaced.add(prefix)
    progress(len(found.adapters), len(found.adapters))
    return made, replaced, Report(tuple(modules), exact=len(found.adapters) - len(modules))


def _stays(key: str, replaced: set[str]) -> bool:
    return split_key(key)[0] not in replaced


def resized(adapter: Adapter, asked: Asked) -> Adapter | None:
    """The same algorithm with less rank, in float32; None where that would not be smaller.

    A DoRA's magnitudes stay, so its changed weight still has their norms.
    """
    if isinstance(adapter, DoRA):
        inner = resized(adapter.inner, asked)
        return None if inner is None else dataclasses.replace(adapter, inner=inner, alpha=inner.alpha)
    if isinstance(adapter, LoRA):
        made = best_lora(adapter, rank=asked.rank, max_error=asked.max_error)
        return made if made.rank < adapter.rank else None
    if isinstance(adapter, LoKr):
        return _lokr(adapter, asked)
    return _loha(adapter, asked) if isinstance(adapter, LoHa) else None


def _lokr(adapter: LoKr, asked: Asked) -> LoKr | None:
    """w1 stays; w2 becomes the best of its rank, whose relative error is the whole change's."""
    a, b = adapter.factor2(torch.float32, next(iter(adapter.tensors.values())).device)
    w2 = a if b is None else a @ b
    most = min(w2.shape) if b is None else b.shape[0]
    u, s, v = truncated(w2, most)
    rank = most if asked.rank is None else min(asked.rank, most)
    if asked.max_error is not None:
        rank = min(rank, rank_for(s, float(w2.double().square().sum()), asked.max_error) or rank)
    # A product of rank r has r * (rows + columns) numbers.
    smaller = rank < most if b is not None else rank * sum(w2.shape) < w2.numel()
    if not smaller:
        return None
    half = s[:rank].sqrt()
    return LoKr(
        w1=adapter.w1,
        w1_a=adapter.w1_a,
        w1_b=adapter.w1_b,
        w2_a=u[:, :rank] * half,
        w2_b=(v[:, :rank] * half).t().reshape(rank, *_columns(adapter)),
        alpha=adapter.scale * rank,
    )


def _columns(adapter: LoKr) -> tuple[int, ...]:
    """(in_n,) or (in_n, *kernel)."""
    whole = adapter.shape
    return whole[1] // adapter.factor1(adapter.dtype, torch.device("cpu")).shape[1], *whole[2:]


def _loha(adapter: LoHa, asked: Asked) -> LoHa | None:
    """By rank; by error, the first of 1, 2, 4, … below its own that is near enough."""
    most = min(asked.rank or adapter.rank, adapter.rank)
    if asked.max_error is None:
        sizes = [most] if most < adapter.rank else []
    else:
        sizes = [2**n for n in range(most.bit_length()) if 2**n < most] + ([most] if most < adapter.rank else [])
    delta = adapter.delta_weight().flatten(1)
    norm = float(delta.double().square().sum().sqrt())
    for size in sizes:
        made = nearest_loha(delta, size)
        left = made.add_to_(delta.clone(), -1.0)
        error = float(left.double().square().sum().sqrt())
        if asked.max_error is None or error <= asked.max_error * norm or size == asked.rank:
            return made
    return None


def _bare(adapter: Adapter) -> Adapter:
    return adapter.inner if isinstance(adapter, DoRA) else adapter


def _measured(path: str, made: Adapter, exact: Adapter) -> Module:
    delta = exact.delta_weight().reshape(exact.flat_shape)
    norm = float(delta.double().square().sum().sqrt())
    made.add_to_(delta, -1.0)
    error = float(delta.double().square().sum().sqrt()) / (norm or 1.0)
    return Module(path, made.algorithm, made.rank, error, norm)


def _metadata(found: AdapterSet, report: Report, name: str) -> dict[str, str]:
    """The file's own, with what became wrong of it mended."""
    kept = {key: value for key, value in found.metadata.items() if key != ADAPTER_METADATA}
    rank = max(m.rank or 0 for m in report.modules)
    if "ss_network_dim" in kept:
        kept |= {"ss_network_dim": str(rank), "ss_network_alpha": "Dynamic"}
    kept["lyco_resize"] = json.dumps({"version": __version__, "source": name, "error": report.error}, sort_keys=True)
    return kept
