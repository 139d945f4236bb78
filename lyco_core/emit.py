"""Adapters into a file's tensors: keys by layout, alphas, and the metadata that PEFT needs beside them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from torch import Tensor

from .adapters import Adapter, DoRA, LoRA, bare
from .architectures import Architecture
from .formats import FORMATS
from .formats.peft import ADAPTER_METADATA, adapter_metadata
from .formats.suffixes import ALPHA, BIAS_SUFFIX, suffix_of
from .layouts import BIAS, Layout, parameter_of

__all__ = ["Entry", "in_layout", "is_peft", "lora_config", "prefix_of"]


@dataclasses.dataclass(frozen=True)
class Entry:
    """One module of a file; a module path that ends in `.bias` means its bias."""

    module_path: str
    adapter: Adapter
    alpha: Tensor | None
    """As it is to stand among the tensors, if it does."""


def in_layout(
    entries: Sequence[Entry], family: Architecture | None, layout: Layout
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file in `layout`, and the metadata that they cannot be read without.

    A file of LoRA alone is PEFT's own in diffusers' layout: its alphas stand in the metadata.
    """
    form, peft = FORMATS[layout], is_peft([entry.adapter for entry in entries], layout)
    tensors: dict[str, Tensor] = {}
    for entry in entries:
        path, parameter = parameter_of(entry.module_path)
        prefix = prefix_of(family, layout, path)
        for (algorithm, field), tensor in (_as_peft(entry.adapter) if peft else entry.adapter).stored.items():
            suffix = BIAS_SUFFIX if parameter == BIAS else suffix_of(algorithm, field, peft=form.peft)
            tensors[f"{prefix}.{suffix}"] = tensor.contiguous()
        if entry.alpha is not None and not peft:
            tensors[f"{prefix}.{ALPHA}"] = entry.alpha
    if not peft or family is None:
        return tensors, {}
    loras = {entry.module_path: entry.adapter for entry in entries}
    return tensors, {"format": "pt"} | lora_config(loras, family.diffusers_prefix)


def is_peft(adapters: Sequence[Adapter], layout: Layout) -> bool:
    """Whether a file of these is one that PEFT itself reads."""
    inner = [bare(adapter) for adapter in adapters]
    return FORMATS[layout].peft and all(isinstance(a, LoRA) and a.mid is None for a in inner)


def lora_config(loras: Mapping[str, Adapter], component: str) -> dict[str, str]:
    """The metadata that gives PEFT the ranks and alphas of LoRA, with or without DoRA, by module path."""
    ranks = {path: adapter.rank for path, adapter in loras.items() if adapter.rank is not None}
    inner = {path: bare(adapter).alpha for path, adapter in loras.items()}
    alphas = {path: float(rank) if (alpha := inner[path]) is None else alpha for path, rank in ranks.items()}
    use_dora = any(isinstance(adapter, DoRA) for adapter in loras.values())
    return {ADAPTER_METADATA: adapter_metadata(ranks, alphas, use_dora=use_dora, component=component)} if ranks else {}


def _as_peft(adapter: Adapter) -> Adapter:
    """A convolution's up as the 1 x 1 convolution that PEFT has for it."""
    up, down = adapter.tensors["up"], adapter.tensors["down"]
    return adapter.with_tensors({**adapter.tensors, "up": up.reshape(*up.shape[:2], *[1] * (down.dim() - 2))})


def prefix_of(family: Architecture | None, layout: Layout, module_path: str) -> str:
    """What the keys of a module begin with; diffusers calls a UNet `unet`, all others `transformer`."""
    if layout == "diffusers" and family is not None:
        return family.diffusers_prefix + module_path
    return FORMATS[layout].prefix(module_path)
