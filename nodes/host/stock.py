"""Where our tables end: ComfyUI's own key map and adapters, so that no file loads worse than there."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import comfy.lora
from torch import Tensor

from ...lyco_core.adapters import Adapter
from ...lyco_core.placement import Misfit, Placement
from .patch import LycoPatch


@dataclasses.dataclass(frozen=True)
class StockMatch:
    """What ComfyUI's names place of what our tables do not."""

    patches: dict
    """As `add_patches` takes them."""
    modules: frozenset[str]
    """Modules of the adapter set that have a place after all."""
    misfits: tuple[Misfit, ...]
    unread: tuple[str, ...]
    """Keys that are still nowhere."""
    summary: str


def match_by_names(placement: Placement, model, clip, shapes: Mapping[str, tuple[int, ...]]) -> StockMatch:
    """Place what `placement` leaves over by the names that ComfyUI knows for this model and CLIP.

    LoRA, LoHa and LoKr become our patches, checked and exact; everything else (DoRA, GLoRA, OFT,
    differences) becomes ComfyUI's own.
    """
    found = placement.adapter_set
    if not placement.homeless and not found.unrecognised:
        return StockMatch({}, frozenset(), (), (), "")
    names = comfy.lora.model_lora_keys_unet(model.model, {})
    if clip is not None:
        names = comfy.lora.model_lora_keys_clip(clip.cond_stage_model, names)
        shapes = {**shapes, **{k: tuple(t.shape) for k, t in clip.cond_stage_model.state_dict().items()}}
    patches: dict = {}
    misfits: list[Misfit] = []
    modules: set[str] = set()
    for path in placement.homeless:
        target = names.get(found.prefixes[path])
        if target is None:
            continue
        modules.add(path)
        misfit = _misfit(path, found.adapters[path], target, shapes)
        if misfit is None:
            patches[target] = LycoPatch.of(found.adapters[path], found.prefixes[path])
        else:
            misfits.append(misfit)
    exact = len(patches)
    watched = _Watched(found.unrecognised)
    patches |= comfy.lora.load_lora(watched, names, log_missing=False)
    unread = tuple(key for key in watched if key not in watched.read)
    summary = f"{exact} by this pack, {len(patches) - exact} by its own adapters"
    return StockMatch(patches, frozenset(modules), tuple(misfits), unread, summary)


class _Watched(dict):
    """A dict that knows which keys were read: `load_lora` only logs the ones that it left."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__(tensors)
        self.read: set[str] = set()

    def __getitem__(self, key: str) -> Tensor:
        value = super().__getitem__(key)
        self.read.add(key)
        return value

    def get(self, key: str, default=None):
        if key in self:
            self.read.add(key)
        return super().get(key, default)


def _misfit(path: str, adapter: Adapter, target, shapes: Mapping[str, tuple[int, ...]]) -> Misfit | None:
    """What is wrong with an adapter's shape for a place in ComfyUI's key map: key, or (key, rows, …)."""
    key = target if isinstance(target, str) else target[0]
    shape = list(shapes[key])
    if not isinstance(target, str) and target[1] is not None:
        dimension, _, length = target[1]
        shape[dimension] = length
    if adapter.shape[0] == shape[0] and math.prod(adapter.shape) == math.prod(shape):
        return None
    return Misfit(path, key, tuple(shape), adapter.shape)
