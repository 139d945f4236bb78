"""What Musubi Tuner's own reader takes: one algorithm a file, of three, each with an alpha."""

from __future__ import annotations

import dataclasses

from ..adapter_set import AdapterSet
from ..adapters import LOW_RANK, LoHa, LoKr, LoRA, bare, to_loha, to_lora, with_alpha
from ..errors import PlacementError, Remedy
from .result import Converted

__all__ = ["require_readable", "uniform", "with_an_alpha"]


def require_readable(found: AdapterSet, *, as_lora: bool) -> None:
    """Refuse what Musubi Tuner would read only half, or not: it ignores the tensors that it does not know.

    Of a family that it does not train, the layout is sd-scripts', where LyCORIS reads all of them.

    Args:
        as_lora: whether all of them become LoRA.
    """
    family = found.architecture
    if family is None:
        return
    other = next((p for p, a in found.adapters.items() if not isinstance(a, LoRA)), None)
    if family.musubi_lora_only and other is not None and not as_lora:
        raise PlacementError(
            f"{found.prefixes[other]}: is a {found.adapters[other].title}, and Musubi Tuner reads LoRA only for "
            f"{family.title}",
            Remedy.AS_LORA,
        )
    if family.training is None or not family.training.by_musubi:
        return
    if other := next((p for p, a in found.adapters.items() if a.algorithm not in LOW_RANK), None):
        raise PlacementError(
            f"{found.prefixes[other]}: is a {found.adapters[other].title}, and Musubi Tuner reads LoRA, LoHa and LoKr "
            "only",
            Remedy.LAYOUT,
            "comfyui or diffusers",
        )


def uniform(modules: list[Converted]) -> list[Converted]:
    """The modules in one algorithm that Musubi reads: as they are if they have one, else the smaller of LoHa and LoRA.

    A LoKr with a low-rank w1 is none that Musubi reads.
    """
    native = {m.adapter.algorithm for m in modules}
    if len(native) == 1 and not any(isinstance(m.adapter, LoKr) and m.adapter.w1 is None for m in modules):
        return modules
    forms: list[list[Converted]] = []
    for kind, convert in ((LoHa, to_loha), (LoRA, to_lora)):
        adapters = [m.adapter if isinstance(m.adapter, kind) else convert(m.adapter) for m in modules]
        if None not in adapters:
            title = f"as {kind.title}"
            forms.append(
                [
                    m if a is m.adapter else dataclasses.replace(m, adapter=a, how=title)
                    for m, a in zip(modules, adapters, strict=True)
                ]
            )
    if not forms:
        raise PlacementError("its modules are of several algorithms, and Musubi reads one a file", Remedy.AS_LORA)
    return min(forms, key=lambda form: sum(t.nbytes for m in form for t in m.adapter.tensors.values()))


def with_an_alpha(module: Converted) -> Converted:
    """The module with an alpha, which Musubi wants of each: where there is none, one that means a scale of 1."""
    inner = bare(module.adapter)
    if module.adapter.alpha is not None or inner.algorithm not in LOW_RANK:
        return module
    alpha = float(inner.rank or max(inner.tensors["w2"].shape))
    return dataclasses.replace(module, adapter=with_alpha(module.adapter, alpha))
