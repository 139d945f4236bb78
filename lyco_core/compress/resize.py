"""An adapter file of less rank: every module keeps its algorithm, its keys' spelling and its scale's meaning."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from ..adapter_file import stored_as, write_adapters
from ..adapter_set import AdapterSet
from ..adapters import LOW_RANK, Adapter, DoRA, Full, LoHa, LoKr, LoRA
from ..architectures import identify
from ..devices import norm
from ..emit import bare, lora_config
from ..errors import AdapterError, ArchitectureError, LycoError, about_file
from ..formats import TENSOR_SUFFIXES
from ..formats.grammar import underscored
from ..formats.peft import ADAPTER_METADATA
from ..formats.suffixes import ALPHA, BIAS_SUFFIX, split_key, suffix_of
from ..io import SafetensorsFile, is_same_file, refuse_existing, sshs_hashes
from ..layouts import BIAS
from ..load import read_adapter_set
from ..placement import place
from ..version import __version__
from .hadamard import nearest_loha
from .lora import best_lora
from .options import Asked, RankTooSmall
from .report import Module, Report
from .svd import rank_for, svd_of_product, truncated

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
        if is_same_file(source, output):
            raise LycoError("is both the input and the output; give the output another name")
        found = _once(read_adapter_set(source))
        smaller, report = _all_resized(found, asked, dtype, progress)
        if not smaller:
            raise LycoError("nothing in it can be made smaller as asked; it would be the same file")
        with SafetensorsFile(source) as file:
            tensors = {key: file.tensor(key) for key in file.header.tensors}
        tensors, metadata = _written(found, smaller, tensors)
    metadata["lyco_resize"] = json.dumps(
        {"version": __version__, "source": os.path.basename(os.fspath(source)), "error": report.error}, sort_keys=True
    )
    write_adapters(output, tensors, metadata | sshs_hashes(tensors, metadata), overwrite=overwrite)
    return report


def _once(found: AdapterSet) -> AdapterSet:
    """Without the modules that are there under another layout's names too."""
    try:
        identified = identify(found)
    except ArchitectureError:  # its names are those of several families: where they lie is not known
        return found
    twice = {p: why for p, why in place(identified).adapter_set.idle.items() if p not in found.idle}
    return found.without(
        {path: twice[found.prefixes[path]] for path in found.adapters if found.prefixes[path] in twice}
    )


def _all_resized(
    found: AdapterSet, asked: Asked, dtype: torch.dtype | None, progress: Progress
) -> tuple[dict[str, Adapter], Report]:
    """What becomes smaller, as it will be stored, by module path."""
    made: dict[str, Adapter] = {}
    modules: list[Module] = []
    needed: dict[str, int] = {}
    for done, (path, adapter) in enumerate(found.adapters.items()):
        progress(done, len(found.adapters))
        stored = dtype or adapter.dtype
        try:
            smaller = resized(adapter, asked.before_rounding(stored))
        except RankTooSmall as error:
            needed[found.prefixes[path]] = error.needed
            continue
        except AdapterError as error:
            raise AdapterError(f"{found.prefixes[path]}: {error}") from None
        if smaller is not None:
            made[path] = stored_as(smaller, stored, found.prefixes[path])
            modules.append(_measured(path, bare(made[path]), bare(adapter)))
    progress(len(found.adapters), len(found.adapters))
    asked.require(needed, {m.name: m.error for m in modules})
    return made, Report(tuple(modules), exact=len(found.adapters) - len(modules))


def _written(
    found: AdapterSet, smaller: Mapping[str, Adapter], tensors: dict[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The new file's tensors and metadata; `tensors` are the old one's.

    Where a configuration of PEFT's scales the file, it cannot stand beside new ranks: all that it
    scaled is written anew, a LoRA's alpha into the metadata as diffusers has it.
    """
    form = found.format
    scaled = [
        path
        for path, adapter in found.adapters.items()
        if bare(adapter).algorithm in LOW_RANK and path not in found.alpha_tensors and form is not None and form.peft
    ]
    anew = {path: smaller.get(path, found.adapters[path]) for path in dict.fromkeys([*scaled, *smaller])}
    in_metadata = bool(scaled) and all(isinstance(bare(anew[path]), LoRA) for path in scaled)
    # Also what counts for nothing, and is not half of a module that does: beside it it might contradict.
    idle = found.idle.keys() - set(found.prefixes.values())
    replaced = {underscored(prefix) for prefix in (*(found.prefixes[path] for path in anew), *idle)}
    result: dict[str, Tensor] = {}
    spelled: dict[str, dict[tuple[str, str] | None, str]] = {}
    for key, tensor in tensors.items():
        prefix, suffix = split_key(key)
        if underscored(prefix) not in replaced:
            result[key] = tensor
        spelled.setdefault(prefix, {})[TENSOR_SUFFIXES.get(suffix)] = key
    for path, adapter in anew.items():
        prefix = found.prefixes[path]
        for (algorithm, field), tensor in adapter.stored.items():
            key = (
                spelled[prefix].get((algorithm, field)) or f"{prefix}.{suffix_of(algorithm, field, peft=bool(scaled))}"
            )
            result[key] = tensor.contiguous()
        alpha = bare(adapter).alpha
        if (
            alpha is not None
            and not (in_metadata and path in scaled)
            and (path in found.alpha_tensors or adapter.scale != 1)
        ):
            result[f"{prefix}.{ALPHA}"] = torch.tensor(alpha)
        if isinstance(bias := found.adapters.get(path + BIAS), Full):
            result[f"{prefix}.{BIAS_SUFFIX}"] = bias.diff  # PEFT's own is scaled as the LoRA was
    return result, _metadata(found, smaller.values(), [(p, anew[p]) for p in scaled] if in_metadata else [])


def _metadata(found: AdapterSet, smaller: Iterable[Adapter], loras: Iterable[tuple[str, Adapter]]) -> dict[str, str]:
    """The file's own, with what became wrong of it mended."""
    kept = {key: value for key, value in found.metadata.items() if key != ADAPTER_METADATA}
    if "ss_network_dim" in kept:
        rank = max(adapter.rank or 0 for adapter in smaller)
        kept |= {"ss_network_dim": str(rank), "ss_network_alpha": "Dynamic"}
    scaled = dict(loras)
    component = "unet." if all(found.prefixes[path].startswith("unet.") for path in scaled) else "transformer."
    kept |= lora_config(scaled, component)
    return kept


def resized(adapter: Adapter, asked: Asked) -> Adapter | None:
    """The same algorithm with less rank, in float32; None where that would not be smaller.

    A DoRA's magnitudes stay, so its changed weight still has their norms. Raises `RankTooSmall` if
    both a rank and an error are asked for, and the error needs a larger rank.
    """
    if isinstance(adapter, DoRA):
        inner = resized(adapter.inner, asked)
        return None if inner is None else dataclasses.replace(adapter, inner=inner, alpha=inner.alpha)
    if isinstance(adapter, LoRA):
        made = best_lora(adapter, asked)
        return made if made.rank < adapter.rank else None
    if isinstance(adapter, LoKr):
        return _lokr(adapter, asked)
    return _loha(adapter, asked) if isinstance(adapter, LoHa) else None


def _lokr(adapter: LoKr, asked: Asked) -> LoKr | None:
    """w1 stays; w2 becomes the best of its rank, whose relative error is the whole change's."""
    a, b = adapter.factor2(torch.float32, next(iter(adapter.tensors.values())).device)
    rows, columns = a.shape[0], a.shape[1] if b is None else b.shape[1]
    most = min(rows, columns) if b is None else b.shape[0]
    if b is not None:
        u, s, v = svd_of_product(a, b)
    else:
        u, s, v = truncated(a, asked.rank if asked.rank and asked.max_error is None else most)
    rank = most if asked.rank is None else min(asked.rank, most)
    if asked.max_error is not None:
        rank = asked.enough(rank_for(s, asked.max_error) or most)
    # A product of rank r has r * (rows + columns) numbers.
    smaller = rank < most if b is not None else rank * (rows + columns) < rows * columns
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
    """By rank; by error, the first of 1, 2, 4, … and the rank, below its own, that is near enough."""
    own = adapter.rank
    sizes: set[int] = set() if asked.rank is None else {asked.rank}
    if asked.max_error is not None:
        sizes |= {2**n for n in range(own.bit_length())}
    delta = adapter.delta_weight().flatten(1)
    whole = norm(delta)
    for size in sorted(size for size in sizes if size < own):
        made = nearest_loha(delta, size)
        left = made.add_to_(delta.clone(), -1.0)
        if asked.max_error is None or norm(left) <= asked.max_error * whole:
            asked.enough(size)
            return made
    asked.enough(own)
    return None


def _measured(path: str, made: Adapter, exact: Adapter) -> Module:
    delta = exact.delta_weight().reshape(exact.flat_shape)
    whole = norm(delta)
    made.add_to_(delta, -1.0)
    return Module(path, made.algorithm, made.rank, norm(delta) / (whole or 1.0), whole)
