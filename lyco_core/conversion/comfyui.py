"""What ComfyUI's own loaders (Load LoRA, Load LoRA Model) read, and compute as it was trained."""

from __future__ import annotations

from ..adapter_set import AdapterSet
from ..adapters import Adapter, DoRA, Full, GLoRA, LoHa, LoKr, LoRA, OnBase
from ..errors import PlacementError, Remedy
from ..formats import FORMATS
from ..formats.suffixes import ALPHA, BIAS_SUFFIX, suffix_of
from ..layouts import parameter_of
from ..placed import Placed
from ..placement import place
from .modules import layout_for

__all__ = ["computes", "reads_all", "require_computed"]

_COMPUTED = (LoRA, LoHa, LoKr, GLoRA, Full)


def computes(adapter: Adapter) -> bool:
    """Whether ComfyUI's arithmetic (comfy/weight_adapter) gives the change that was trained.

    It has no IA3, BoRA and OFTv2, turns a weight by OFT and BOFT in another way than LyCORIS, divides a DoRA's rows by
    the norm that they had before the change, fails at a LoKr's Tucker form, and takes all kernels for those of images.
    """
    if isinstance(adapter, DoRA):
        return (adapter.axis == 1 or adapter.by_base) and computes(adapter.inner)
    if isinstance(adapter, LoKr):
        return adapter.t2 is None and len(adapter.shape) in (2, 4)
    tucker = {"mid", "t1"} & adapter.tensors.keys()
    return isinstance(adapter, _COMPUTED) and not (tucker and len(adapter.shape) != 4)


def require_computed(found: AdapterSet) -> AdapterSet:
    """The set itself; raises `PlacementError` for a module whose change ComfyUI's loaders would not compute."""
    for path, adapter in found.adapters.items():
        if not computes(adapter):
            raise PlacementError(
                f"{found.prefixes[path]}: is {adapter.title}, of which ComfyUI's own loaders make another change",
                Remedy.APPLY if isinstance(adapter, OnBase) else Remedy.AS_LORA,
            )
    return found


def reads_all(found: AdapterSet) -> bool:
    """Whether ComfyUI's own loaders read all of a file as it is, by the names that they know of every model.

    Told by an outline; False too where they do know some family's other names.
    """
    placement = place(found, layout=layout_for(found, "comfyui"), prefix="")
    computed = all(map(computes, found.adapters.values()))
    return placement.complete and computed and all(_is_named(placed, found) for placed in placement.placed)


def _is_named(placed: Placed, found: AdapterSet) -> bool:
    """Whether a module, and each of its tensors, goes by a name that every model has."""
    prefix, stored = found.prefixes[placed.module_path], found.adapters[placed.module_path].stored
    module = parameter_of(placed.key.removesuffix(".weight"))[0]
    formats = ("comfyui", "musubi") if layout_for(found, "comfyui") == "comfyui" else ("comfyui",)
    if prefix not in (FORMATS[name].prefix(module) for name in formats) or not _is_whole(placed):
        return False
    suffixes = {suffix_of(*field, peft=peft) for field in stored for peft in {False, field[0] == "lora"}}
    known = {f"{prefix}.{suffix}" for suffix in (*suffixes, ALPHA, BIAS_SUFFIX)}
    return known.issuperset(found.keys[prefix].values())


def _is_whole(placed: Placed) -> bool:
    return not (placed.rows or placed.source_rows or placed.swapped)
