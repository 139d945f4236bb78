"""Where our tables end: ComfyUI's own key map and adapters, so that no file loads worse than there."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import comfy.lora
import torch
from torch import Tensor

from ....lyco_core.adapters import Adapter, fits
from ....lyco_core.errors import AdapterError
from ....lyco_core.finite import check_finite
from ....lyco_core.formats import TENSOR_SUFFIXES, parse, split_key
from ....lyco_core.layouts import BIAS
from ....lyco_core.model import Model
from ....lyco_core.names import Names, weight_names
from ....lyco_core.placement import Placement
from ..protocols import CLIP, ModelPatcher, PatchKey
from .patch import LycoPatch
from .places import Patches, Place, put
from .text_encoders import encoder_names
from .weights import weight_shapes

Shapes = Mapping[str, tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class StockMatch:
    """What ComfyUI's names place of what our tables do not."""

    exact: Patches
    """Patches of ours, for what we know."""
    stock: Patches
    """Patches of ComfyUI's own adapters, for the rest."""
    modules: frozenset[str]
    """Modules of the adapter set that have a place after all."""
    unread: tuple[str, ...]
    """Keys that are still nowhere."""
    names: Mapping[Place, tuple[str, ...]]
    """What the file calls the module of each place."""

    @property
    def patches(self) -> Patches:
        return self.exact | self.stock


def match_by_names(placement: Placement, model: ModelPatcher | None, clip: CLIP | None, shapes: Shapes) -> StockMatch:
    """Place what `placement` leaves over by the names that ComfyUI knows for this model and CLIP.

    What `lyco_core` knows becomes our patches, checked and exact; everything else (a weight that is
    set, or made larger) becomes ComfyUI's own.

    Raises:
        AdapterError: a module's tensors are not what its algorithm needs, or not finite.
    """
    found = placement.adapter_set
    left = (*placement.homeless, *(m.module_path for m in placement.misfits))
    if not left and not found.unrecognised:
        return StockMatch({}, {}, frozenset(), (), {})
    names, shapes = key_map(model, clip, shapes)
    exact: Patches = {}
    spelled: dict[Place, tuple[str, ...]] = {}
    modules: set[str] = set()
    for path in left:
        place = names.get(found.prefixes[path])
        if path.endswith(BIAS):
            place = bias_of(place, shapes)
        if place is not None and fits(found.adapters[path].shape, place.shape_in(shapes)):
            modules.add(path)
            spelled[place] = (path, found.prefixes[path])
            put(exact, place, LycoPatch.of(found.adapters[path], found.prefixes[path]), found.prefixes[path])
    stock: Patches = {}
    unread: list[str] = []
    for prefix, keys in _by_module(found.unrecognised, names).items():
        tensors = {key: found.unrecognised[key] for key in keys}
        patches = _stock_patches(prefix, tensors, names, shapes)
        if patches is None:
            unread += keys
        else:
            for place, patch in patches.items():
                spelled[place] = (prefix, *keys)
                put(stock, place, patch, prefix)
    return StockMatch(exact, stock, frozenset(modules), tuple(unread), spelled)


def key_map(model: ModelPatcher | None, clip: CLIP | None, shapes: Shapes) -> tuple[dict[str, Place], Shapes]:
    """ComfyUI's names of a model's and a text encoder's weights -> the weight, or rows of it; and all their shapes."""
    names: dict[str, PatchKey] = {} if model is None else comfy.lora.model_lora_keys_unet(model.model, {})
    if clip is not None:
        names = comfy.lora.model_lora_keys_clip(clip.cond_stage_model, names)
        names = encoder_names(clip.cond_stage_model.state_dict()) | names
        shapes = {**shapes, **weight_shapes(clip.cond_stage_model)}
    places = {name: Place.of(key) for name, key in names.items()}
    return {name: place for name, place in places.items() if place.key in shapes}, shapes


def their_names(placement: Placement, model: ModelPatcher, clip: CLIP | None, weights: Model) -> Names:
    """The names of what our tables leave over, and those of the weights that ComfyUI has for it."""
    found = placement.adapter_set
    places, _ = key_map(model, clip, weights.shapes)
    prefixes = {path: found.prefixes[path] for path in placement.left if path in found.prefixes}
    prefixes |= {key: prefix for prefix, keys in _by_module(found.unrecognised, places).items() for key in keys}
    return {
        item: (*placement.names[item], prefix, *weight_names(places[prefix].key, weights.prefix))
        for item, prefix in prefixes.items()
        if prefix in places
    }


def bias_of(place: Place | None, shapes: Shapes) -> Place | None:
    """The bias beside a weight in ComfyUI's key map, or None if the module has none."""
    if place is None:
        return None
    key = place.key.removesuffix(".weight") + BIAS
    return place._replace(key=key) if key in shapes else None


def _by_module(tensors: Mapping[str, Tensor], names: Mapping[str, object]) -> dict[str, list[str]]:
    """Keys by the longest beginning that ComfyUI has a name for."""
    grouped: dict[str, list[str]] = {}
    for key in tensors:
        prefix = split_key(key)[0]
        for _ in range(3):
            if prefix in names or "." not in prefix:
                break
            prefix = prefix.rpartition(".")[0]
        grouped.setdefault(prefix, []).append(key)
    return grouped


def _stock_patches(
    prefix: str, tensors: dict[str, Tensor], names: Mapping[str, Place], shapes: Shapes
) -> Patches | None:
    """ComfyUI's patches for one module; None unless they use every tensor and all have a weight.

    Its adapters log what is wrong when they are applied, and leave the weight as it was, so what
    can be checked before is checked here.
    """
    if prefix not in names:
        return None
    watched = _Watched(tensors)
    try:
        loaded = comfy.lora.load_lora(watched, {prefix: names[prefix].patch_key}, log_missing=False)
    except Exception as error:
        raise AdapterError(f"{prefix}: ComfyUI cannot read its tensors ({type(error).__name__}: {error})") from error
    patches: Patches = {Place.of(key): patch for key, patch in loaded.items()}
    if not patches or watched.read != set(tensors) or any(place.key not in shapes for place in patches):
        return None
    for key, tensor in tensors.items():
        if tensor.is_floating_point():
            check_finite(key, tensor)
    if not any(key.endswith(".reshape_weight") for key in tensors):
        _check_shapes(prefix, tensors, patches, shapes)
    return patches


def _check_shapes(prefix: str, tensors: dict[str, Tensor], patches: Patches, shapes: Shapes) -> None:
    known = {key: tensor for key, tensor in tensors.items() if split_key(key)[1] in TENSOR_SUFFIXES}
    adapters: list[Adapter] = list(parse(known, {}).adapters.values())
    for place, patch in patches.items():
        shape = place.shape_in(shapes)
        if isinstance(patch, tuple) and torch.is_tensor(patch[1][0]):
            found = [tuple(patch[1][0].shape)]
        else:
            found = [adapter.shape for adapter in adapters]
        for adapter_shape in found:
            if not fits(adapter_shape, shape):
                raise AdapterError(
                    f"{prefix}: changes a weight of {list(adapter_shape)}, the model's {place.key} is {list(shape)}"
                )


class _Watched(dict[str, Tensor]):
    """A dict that knows which keys were read: `load_lora` only logs the ones that it left."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__(tensors)
        self.read: set[str] = set()

    def __getitem__(self, key: str) -> Tensor:
        value = super().__getitem__(key)
        self.read.add(key)
        return value

    def get(self, key: str, default: Any = None) -> Any:
        if key in self:
            self.read.add(key)
        return super().get(key, default)
