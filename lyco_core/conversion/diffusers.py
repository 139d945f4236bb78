"""What diffusers' own loaders read: LoRA, and since 0.42 LoKr, in a file of one of the two.

They know no alpha of a LoKr, and infer from its factors' shapes how PEFT is to make them: each outer factor whole, an
inner one as a product only of less than half its size, all of one factor.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence

import torch

from ..adapter_set import AdapterSet
from ..adapters import LoKr, LoRA, multiplied, to_lora
from ..adapters.factors import factorization
from ..architectures import FUSED
from ..errors import PlacementError, Remedy
from .result import Converted

__all__ = ["SINCE", "for_diffusers"]

SINCE = "0.42"
"""The first diffusers that reads LoKr."""

_FUSED = ("to_qkv", "to_added_qkv")
"""The modules of attention that it makes in its model where a LoKr has them."""


def for_diffusers(modules: Sequence[Converted], found: AdapterSet) -> list[Converted]:
    """The modules as diffusers reads them, where a LoKr is among them: all as LoKr, or all as LoRA.

    What diffusers reads in no form stays as it is, for what else goes by its names.

    Raises:
        PlacementError: LoKr and LoRA would be in one file, and something of it has no LoRA.
    """
    kinds = {type(module.adapter) for module in modules}
    if LoKr not in kinds or not kinds <= {LoKr, LoRA}:
        return list(modules)
    kept = _as_fused(modules, found) if LoRA in kinds else list(modules)
    lokrs = {m.module_path: _for_peft(m.adapter) for m in kept if isinstance(m.adapter, LoKr)}
    if len(lokrs) < len(kept) or not _is_readable(lokrs):
        return [_as_lora(module) for module in modules]
    return [dataclasses.replace(m, adapter=lokrs[m.module_path]) for m in kept]


def _as_fused(modules: Sequence[Converted], found: AdapterSet) -> list[Converted]:
    """The modules with those of attention fused as their file has them, where diffusers fuses its model for that.

    It fuses all or nothing: a module of one that is fused would change nothing.
    """
    family = found.architecture
    if family is None or found.layout is None or not family.diffusers_fuses:
        return list(modules)
    made: dict[str, Converted] = {}
    for module in modules:
        source = module.sources[0]
        cut = len(module.sources) == 1 and module.how != "renamed"
        fused = family.fused_name(source, found.exceptions.get(source, found.layout), "diffusers") if cut else None
        whole = Converted(fused, module.sources, found.adapters[source], "renamed") if fused else module
        made[whole.module_path] = whole
    parts = {part for name in _FUSED for part in FUSED[name]}
    apart = any(path.rpartition(".")[2] in parts for path in made)
    return list(modules) if apart else list(made.values())


def _for_peft(lokr: LoKr) -> LoKr:
    """The same change with its scale in w1, and each factor whole where PEFT would make it so."""
    device = next(iter(lokr.tensors.values())).device
    w1 = lokr.factor1(torch.float32, device) if lokr.w1 is None else lokr.w1
    w1 = w1 if lokr.scale == 1 else multiplied(w1, lokr.scale)
    if lokr.t2 is None and (lokr.w2 is not None or _rank(lokr) < max(lokr.shape2) / 2):
        return LoKr(w1=w1, w2=lokr.w2, w2_a=lokr.w2_a, w2_b=lokr.w2_b)
    a, b = lokr.factor2(torch.float32, device)
    return LoKr(w1=w1, w2=(a if b is None else a @ b).reshape(lokr.shape2))


def _rank(lokr: LoKr) -> int:
    """What diffusers takes for the rank of a LoKr with a whole w1."""
    return max(lokr.shape2) if lokr.w2_b is None else lokr.w2_b.shape[0]


def _is_readable(lokrs: Mapping[str, LoKr]) -> bool:
    """Whether diffusers infers for each module, by its path, what has its factors' shapes."""
    if any(len(lokr.shape) > 2 for lokr in lokrs.values()):
        return False
    factors = {lokr.shape1[0] for lokr in lokrs.values()} | {-1}
    if not any(all(_divides(lokr, factor) for lokr in lokrs.values()) for factor in factors):
        return False
    ranks = {path: _rank(lokrs[path]) for path in sorted(lokrs)}
    common = Counter(ranks.values()).most_common(1)[0][0]
    others = [path for path, rank in ranks.items() if rank != common]
    for path, lokr in lokrs.items():
        # A path stands for every module that ends in it.
        named = next((other for other in others if path == other or path.endswith(f".{other}")), None)
        rank = common if named is None else ranks[named]
        if (rank >= max(lokr.shape2) / 2) if lokr.w2 is None else (rank < max(lokr.shape2) / 2):
            return False
        if lokr.w2 is None and rank != ranks[path]:
            return False
    return True


def _divides(lokr: LoKr, factor: int) -> bool:
    """Whether PEFT divides the weight's sides as this LoKr does, given a factor."""
    sides = zip(lokr.shape1, lokr.shape2, strict=True)
    return all(
        factorization(left * right, factor) == (left, right) and (left * right % factor or factor <= right)
        for left, right in sides
    )


def _as_lora(module: Converted) -> Converted:
    if isinstance(module.adapter, LoRA):
        return module
    if (lora := to_lora(module.adapter)) is None:
        raise PlacementError(f"{module.sources[0]}: {module.adapter.title} has no exact LoRA", Remedy.RANK)
    return dataclasses.replace(module, adapter=lora, how=f"as {lora.title}")
