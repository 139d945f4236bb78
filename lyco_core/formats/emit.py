"""From an `AdapterSet` to the tensors and metadata of a file: the inverse of `parse`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ..adapter_set import AdapterSet
from ..adapters import Adapter, DoRA, Full, LoRA, OFTv2, bare
from ..errors import PlacementError
from ..layouts import BIAS, parameter_of
from ..text import shorten
from .dialects import DORA_NORM, OFT_SERIES, dialect_of, series_text
from .grammar import Format, format_of, is_text_encoders, underscored
from .modules import is_adapter
from .peft import ADAPTER_METADATA, adapter_metadata
from .suffixes import (
    ALPHA,
    BIAS_SUFFIX,
    DORA,
    MAGNITUDES,
    OWN_BIAS_SUFFIXES,
    PARAMETER_SUFFIXES,
    TENSOR_SUFFIXES,
    suffix_of,
)

__all__ = ["emit", "is_peft", "spelled"]

Suffixes = dict[str, tuple[str, Tensor]]
"""Suffix -> (key, tensor), of one module."""


def emit(adapter_set: AdapterSet, format: Format | None = None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file that holds the set, and its metadata.

    Whatever the set's own file had a name for keeps it, and keys that belong to no adapter stay as
    they are. A file of LoRA alone under PEFT's names is PEFT's own: its alphas stand in the metadata.

    Args:
        adapter_set: each module's `prefixes` begin its keys; outlines will do.
        format: how its modules are to be spelled; None: as they are.

    Raises:
        PlacementError: these names cannot hold something of the set, which it names.
    """
    if format is not None and format is not adapter_set.format:
        adapter_set = spelled(adapter_set, format)
    peft = is_peft(adapter_set)
    modules: dict[str, Suffixes] = {}
    configured: dict[str, Adapter] = {}
    for path, adapter in adapter_set.adapters.items():
        prefix = adapter_set.prefixes[path]
        module, known = modules.setdefault(prefix, {}), adapter_set.keys.get(prefix, {})
        if path.endswith(BIAS):
            _put_bias(module, known, prefix, adapter)
            continue
        if isinstance(adapter, Full) and (own := _parameter_suffix(path, known)):
            _put(module, known, prefix, own, adapter.diff)
            continue
        _put_weight(module, known, prefix, _as_peft(adapter) if peft else adapter, adapter_set.format)
        if peft and ALPHA not in known:
            configured[prefix] = adapter
        elif (alpha := _alpha(adapter, adapter_set.alpha_tensors.get(path))) is not None:
            _put(module, known, prefix, ALPHA, alpha)
    tensors = dict(adapter_set.unrecognised)
    for prefix, module in modules.items():
        if not is_adapter(module):
            kinds = " and ".join(a.title for p, a in adapter_set.adapters.items() if adapter_set.prefixes[p] == prefix)
            raise PlacementError(f"{prefix}: no format has names for {kinds} of one module; leave one of them out")
        tensors.update(module.values())
    return tensors, _metadata(adapter_set, configured)


def spelled(adapter_set: AdapterSet, format: Format) -> AdapterSet:
    """The set as a file of `format` calls its modules; what its own file called them is forgotten.

    Raises:
        PlacementError: a module has no name there, or a key belongs to no module.
    """
    if keys := adapter_set.unrecognised_keys:
        raise PlacementError(f"{len(keys)} keys belong to no adapter that is known here ({shorten(list(keys))})")
    prefixes = {path: _prefix(adapter_set, format, parameter_of(path)[0]) for path in adapter_set.adapters}
    return dataclasses.replace(adapter_set, format=format, prefixes=prefixes, keys={}, foreign={}, idle={})


def _prefix(adapter_set: AdapterSet, format: Format, module: str) -> str:
    """What the keys of a module begin with; diffusers calls a UNet `unet`, all others `transformer`."""
    own, family = adapter_set.format, adapter_set.architecture
    why = ""
    if own is not None and own.underscored and not format.underscored and not _in_a_table(adapter_set, module):
        why = "is spelled with underscores, and no known architecture tells which of them are dots"
    if is_text_encoders(module):
        why = "is a text encoder's"
    prefix = format.prefix(module)
    if format.id == "diffusers" and family is not None:
        prefix = family.diffusers_prefix + module
    again = underscored(module) if format.underscored else module
    if not why and (format_of(prefix) is not format or format.module(prefix) != again):
        why = f"would be taken for another module as {prefix}"
    if why:
        raise PlacementError(f"{module}: {why}, so it has no name in the format {format.title}; choose another format")
    return prefix


def _in_a_table(adapter_set: AdapterSet, module: str) -> bool:
    """Whether the set's architecture has a module of that dotted name."""
    layout = adapter_set.exceptions.get(module) or adapter_set.layout
    family = adapter_set.architecture
    return family is not None and layout is not None and family.resolve(module, layout, underscored=False) is not None


def _put(module: Suffixes, known: Mapping[str, str], prefix: str, suffix: str, tensor: Tensor) -> None:
    """Add one tensor of a module, under the key that its file had for it if there is one."""
    if suffix in module:
        raise PlacementError(f"{prefix}: two modules would go by this one name; choose a format whose names have dots")
    module[suffix] = known.get(suffix, f"{prefix}.{suffix}"), tensor.contiguous()


def _put_weight(
    module: Suffixes, known: Mapping[str, str], prefix: str, adapter: Adapter, format: Format | None
) -> None:
    """Add the tensors that change the module's weight."""
    dora = adapter.inner if isinstance(adapter, OFTv2) else adapter
    for field, tensor in adapter.stored.items():
        suffix = next((s for s in known if TENSOR_SUFFIXES.get(s) == field), None)
        suffix = suffix or suffix_of(*field, peft=format is not None and format.peft)
        if isinstance(dora, DoRA) and field == (DORA, "magnitude"):
            _require_norm(prefix, dora, suffix, known, format)
        if isinstance(dora, DoRA) and suffix in MAGNITUDES and suffix != "dora_scale":
            if dora.axis == 1:
                raise PlacementError(
                    f"{prefix}: its DoRA magnitude is along the inputs, {format.id if format else suffix} knows the "
                    "outputs' only; convert to another layout"
                )
            tensor = tensor.flatten() if tensor.dim() == 2 else tensor.transpose(0, 1)  # as PEFT has them
        _put(module, known, prefix, suffix, tensor)


def _require_norm(prefix: str, dora: DoRA, suffix: str, known: Mapping[str, str], format: Format | None) -> None:
    """Refuse names under which readers divide magnitudes by another norm than they are made for."""
    if dora.by_base and not (suffix == "dora_scale" and (suffix in known or (format and format.id == "comfyui"))):
        raise PlacementError(
            f"{prefix}: its DoRA magnitudes are made for the norm that ComfyUI's own loader divides by, readers of "
            f"{format.id if format else suffix} divide by another; convert the trainer's own file, or to comfyui"
        )


def _put_bias(module: Suffixes, known: Mapping[str, str], prefix: str, adapter: Adapter) -> None:
    """Add the difference of the module's bias; not under PEFT's name, which its LoRA's scale goes for too."""
    if not isinstance(adapter, Full):
        raise PlacementError(f"{prefix}: no format has names for {adapter.title} of a bias, only for its difference")
    suffix = next((s for s in known if s in OWN_BIAS_SUFFIXES), BIAS_SUFFIX)
    _put(module, known, prefix, suffix, adapter.diff)


def _parameter_suffix(path: str, known: Mapping[str, str]) -> str | None:
    """The suffix under which the file has the parameter of that path apart from its module's weight and bias."""
    return next((s for s, parameter in PARAMETER_SUFFIXES.items() if s in known and path.endswith(parameter)), None)


def _alpha(adapter: Adapter, kept: Tensor | None) -> Tensor | None:
    """The alpha to write: the file's own tensor where it still holds, else in the smallest exact dtype."""
    alpha = adapter.alpha
    if alpha is None:
        return None
    if kept is not None and _same_number(float(kept), alpha):
        return kept
    exact = torch.tensor(alpha, dtype=adapter.dtype)
    return exact if _same_number(float(exact), alpha) else torch.tensor(alpha)


def _same_number(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b))


def is_peft(adapter_set: AdapterSet) -> bool:
    """Whether a file of the set is one that PEFT itself reads."""
    inner = [bare(adapter) for adapter in adapter_set.adapters.values()]
    named = adapter_set.format is not None and adapter_set.format.peft
    return named and all(isinstance(a, LoRA) and a.mid is None for a in inner)


def _as_peft(adapter: Adapter) -> Adapter:
    """A convolution's up as the 1 x 1 convolution that PEFT has for it."""
    up, down = adapter.tensors["up"], adapter.tensors["down"]
    return adapter.with_tensors({**adapter.tensors, "up": up.reshape(*up.shape[:2], *[1] * (down.dim() - 2))})


def _dialect(adapter_set: AdapterSet, metadata: Mapping[str, str]) -> dict[str, str]:
    """What the tensors do not tell of themselves."""
    found: dict[str, str] = {}
    every = [a.inner if isinstance(a, OFTv2) else a for a in adapter_set.adapters.values()]
    norms = {a.by_base for a in every if isinstance(a, DoRA) and a.axis == 0}
    dotted = adapter_set.format is not None and adapter_set.format.id == "comfyui"
    if norms - {dialect_of(metadata).dora_by_base(dotted=dotted, initial_norm=False)}:
        if len(norms) > 1:
            raise PlacementError("DoRA magnitudes that are made for two norms; write them into two files")
        found[DORA_NORM] = "weight" if True in norms else "change"
    series = {series_text(a.terms, of_peft=a.of_peft) for a in adapter_set.adapters.values() if isinstance(a, OFTv2)}
    if len(series) > 1:
        raise PlacementError("OFTv2 of several options of PEFT; write them into several files")
    return {**found, OFT_SERIES: series.pop()} if series else found


def _metadata(adapter_set: AdapterSet, configured: Mapping[str, Adapter]) -> dict[str, str]:
    """The set's own, its architecture, and the ranks and alphas of the LoRA that have them there, by prefix."""
    written = {ADAPTER_METADATA, DORA_NORM, OFT_SERIES}
    metadata = {key: value for key, value in adapter_set.metadata.items() if key not in written}
    metadata |= _dialect(adapter_set, metadata)
    if adapter_set.architecture is not None:
        metadata["lyco_architecture"] = adapter_set.architecture.id
    if not configured or adapter_set.format is None:
        return metadata
    loras = {adapter_set.format.module(prefix): adapter for prefix, adapter in configured.items()}
    ranks = {module: adapter.rank for module, adapter in loras.items() if adapter.rank is not None}
    own = {module: adapter.alpha for module, adapter in loras.items() if adapter.alpha is not None}
    alphas = {module: own.get(module, float(rank)) for module, rank in ranks.items()}
    use_dora = any(isinstance(adapter, DoRA) for adapter in loras.values())
    component = "unet." if all(prefix.startswith("unet.") for prefix in configured) else "transformer."
    config = adapter_metadata(ranks, alphas, use_dora=use_dora, component=component)
    return metadata | {"format": "pt", ADAPTER_METADATA: config}
