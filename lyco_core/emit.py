"""What a conversion writes: tensors by algorithm and field, and metadata."""

from __future__ import annotations

import json
import math
from collections import Counter

import torch
from torch import Tensor

from . import __version__
from .adapter_set import AdapterSet
from .adapters import LOW_RANK, Adapter, DoRA, LoRA
from .architectures import ARCHITECTURES
from .conversion import Converted, Options
from .formats import FORMATS
from .formats.peft import ADAPTER_METADATA, adapter_metadata
from .formats.suffixes import ALPHA

__all__ = ["fields_of", "metadata_of", "prefix_of", "without_magnitude"]


def prefix_of(found: AdapterSet, options: Options, module_path: str) -> str:
    """What the keys of a module begin with; diffusers calls a UNet `unet`, all others `transformer`."""
    form = FORMATS[options.to]
    if form.id != "diffusers":
        return form.prefix(module_path)
    return ARCHITECTURES[found.architecture or ""].diffusers_prefix + module_path


def without_magnitude(module: Converted) -> Adapter:
    """The module's adapter; of a DoRA, what it sits on."""
    return module.adapter.inner if isinstance(module.adapter, DoRA) else module.adapter


def fields_of(
    found: AdapterSet, module: Converted, options: Options, *, alphas_in_metadata: bool
) -> dict[tuple[str, str], Tensor]:
    """A module's tensors by algorithm and field, its alpha among them unless it stands in the metadata."""
    adapter = module.adapter
    fields = {name: tensor.contiguous() for name, tensor in adapter.stored.items()}
    alpha = None if alphas_in_metadata else _alpha(found, module, options)
    return fields if alpha is None else fields | {(adapter.algorithm, ALPHA): alpha}


def _alpha(found: AdapterSet, module: Converted, options: Options) -> Tensor | None:
    """The alpha to write: the file's own tensor where it still holds, else in the smallest exact dtype."""
    path, alpha = module.sources[0], module.adapter.alpha
    kept = found.alpha_tensors.get(path)
    if kept is not None and options.dtype is None and _same_number(alpha, found.adapters[path].alpha):
        return kept
    if alpha is None and options.to == "musubi" and (bare := without_magnitude(module)).algorithm in LOW_RANK:
        alpha = float(bare.rank or max(bare.tensors["w2"].shape))
    if alpha is None:
        return None
    exact = torch.tensor(alpha, dtype=module.adapter.dtype)
    return exact if _same_number(float(exact), alpha) else torch.tensor(alpha)


def _same_number(a: float | None, b: float | None) -> bool:
    return a == b or (a is not None and b is not None and math.isnan(a) and math.isnan(b))


def metadata_of(
    found: AdapterSet, modules: list[Converted], options: Options, name: str, *, peft: bool
) -> dict[str, str]:
    """The file's own, what was done, and PEFT's config where the file is PEFT's."""
    kept = {k: v for k, v in found.metadata.items() if k not in (ADAPTER_METADATA, "lyco_conversion")}
    record = {
        "version": __version__,
        "source": name,
        "from": {"format": found.format, "layout": found.layout},
        "to": options.to,
        "modules": dict(Counter(m.how for m in modules)),
    }
    kept["lyco_architecture"] = found.architecture or ""
    kept["lyco_conversion"] = json.dumps(record, sort_keys=True)
    loras = {m.module_path: a for m in modules if isinstance(a := without_magnitude(m), LoRA)}
    if peft:
        kept["format"] = "pt"
        ranks = {path: adapter.rank for path, adapter in loras.items()}
        alphas = {path: float(a.rank) if a.alpha is None else a.alpha for path, a in loras.items()}
        kept[ADAPTER_METADATA] = adapter_metadata(
            ranks,
            alphas,
            use_dora=any(isinstance(m.adapter, DoRA) for m in modules),
            component=ARCHITECTURES[found.architecture or ""].diffusers_prefix,
        )
    return kept
