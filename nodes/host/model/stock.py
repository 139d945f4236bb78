"""Where our tables end: ComfyUI's own key map and adapters, so that no file loads worse than there."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping

import comfy.lora
import torch
from torch import Tensor

from ....lyco_core.adapters import Adapter, agreed, fits
from ....lyco_core.errors import AdapterError
from ....lyco_core.formats import TENSOR_SUFFIXES, parse, split_key
from ....lyco_core.layouts import BIAS
from ....lyco_core.load import check_finite
from ....lyco_core.model import Model
from ....lyco_core.names import Names, weight_names
from ....lyco_core.placement import Placement
from .patch import LycoPatch
from .weights import weight_shapes

Shapes = Mapping[str, tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class StockMatch:
    """What ComfyUI's names place of what our tables do not."""

    exact: dict
    """Patches of ours, by weight key or (key, (dimension, start, length)), as `add_patches` takes them."""
    stock: dict
    """Patches of ComfyUI's own adapters, likewise."""
    modules: frozenset[str]
    """Modules of the adapter set that have a place after all."""
    unread: tuple[str, ...]
    """Keys that are still nowhere."""
    names: Mapping[object, tuple[str, ...]]
    """Place of a patch -> what the file calls it."""

    @property
    def patches(self) -> dict:
        return self.exact | self.stock


def match_by_names(placement: Placement, model, clip, shapes: Shapes) -> StockMatch:
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
    exact: dict = {}
    spelled: dict = {}
    modules: set[str] = set()
    for path in left:
        target = names.get(found.prefixes[path])
        if path.endswith(BIAS):
            target = bias_of(target, shapes)
        if target is not None and fits(found.adapters[path].shape, shape_of(target, shapes)):
            modules.add(path)
            spelled[target] = (path, found.prefixes[path])
            put(exact, target, LycoPatch.of(found.adapters[path], found.prefixes[path]), found.prefixes[path])
    stock: dict = {}
    unread: list[str] = []
    for prefix, keys in _by_module(found.unrecognised, names).items():
        tensors = {key: found.unrecognised[key] for key in keys}
        patches = _stock_patches(prefix, tensors, names, shapes)
        if patches is None:
            unread += keys
        else:
            for target, patch in patches.items():
                spelled[target] = (prefix, *keys)
                put(stock, target, patch, prefix)
    return StockMatch(exact, stock, frozenset(modules), tuple(unread), spelled)


def key_map(model, clip, shapes: Shapes) -> tuple[dict, Shapes]:
    """ComfyUI's names of a model's and a text encoder's weights -> the weight, or rows of it; and all their shapes."""
    names = comfy.lora.model_lora_keys_unet(model.model, {})
    if clip is not None:
        names = comfy.lora.model_lora_keys_clip(clip.cond_stage_model, names)
        shapes = {**shapes, **weight_shapes(clip.cond_stage_model)}
    return {name: target for name, target in names.items() if weight_key(target) in shapes}, shapes


def their_names(placement: Placement, model, clip, weights: Model) -> Names:
    """The names of what our tables leave over, and those of the weights that ComfyUI has for it."""
    found = placement.adapter_set
    targets, _ = key_map(model, clip, weights.shapes)
    prefixes = {path: found.prefixes[path] for path in placement.left if path in found.prefixes}
    prefixes |= {key: prefix for prefix, keys in _by_module(found.unrecognised, targets).items() for key in keys}
    return {
        item: (*placement.names[item], prefix, *weight_names(weight_key(targets[prefix]), weights.prefix))
        for item, prefix in prefixes.items()
        if prefix in targets
    }


def put(patches: dict, target, patch, prefix: str) -> None:
    """Add a patch. Two adapters of one file for the same rows count once if they agree; else there is no choice."""
    if target in patches:
        patch = _agreed(patches[target], patch, prefix, weight_key(target))
    patches[target] = patch


def _agreed(first, second, prefix: str, key: str):
    """The one of two patches of the same rows that counts. Raises `AdapterError` if they contradict each other."""
    if isinstance(first, LycoPatch) and isinstance(second, LycoPatch):
        one, two = first.adapter, second.adapter
        if (kept := agreed(one, two)) is not None:
            return first if kept is one else second
    other = ", ".join(getattr(first, "loaded_keys", ()))
    raise AdapterError(
        f"{prefix}: another module of the file{f', {other},' if other else ''} changes the same weight, {key}, and "
        "not alike; remove one of them from the file"
    )


def require_apart(patches: dict) -> None:
    """Raise `AdapterError` if a patch of some rows meets one of other rows, or of all, that share some with it."""
    of_key: dict[str, list] = {}
    for target in patches:
        of_key.setdefault(weight_key(target), []).append(target)
    for key, targets in of_key.items():
        bands = [(_band(target), target) for target in targets]
        for (first, one), (second, other) in itertools.combinations(bands, 2):
            if max(first[0], second[0]) < min(first[1], second[1]):
                names = [", ".join(getattr(patches[target], "loaded_keys", ())) or "another" for target in (one, other)]
                raise AdapterError(
                    f"{' and '.join(names)} both change {key}, one of them in part; remove one of them from the file"
                )


def _band(target) -> tuple[float, float]:
    """First and last row of a place in ComfyUI's key map."""
    if isinstance(target, str) or target[1] is None:
        return 0, math.inf
    _, start, length = target[1]
    return start, start + length


def weight_key(target) -> str:
    """The weight's key of a place in ComfyUI's key map: the key itself, or (key, rows, …)."""
    return target if isinstance(target, str) else target[0]


def bias_of(target, shapes: Shapes):
    """The bias beside a weight in ComfyUI's key map, or None if the module has none."""
    if target is None:
        return None
    key = weight_key(target).removesuffix(".weight") + BIAS
    return None if key not in shapes else key if isinstance(target, str) else (key, *target[1:])


def shape_of(target, shapes: Shapes) -> tuple[int, ...]:
    """The shape of the rows that a place in ComfyUI's key map stands for."""
    shape = list(shapes[weight_key(target)])
    if not isinstance(target, str) and target[1] is not None:
        dimension, _, length = target[1]
        shape[dimension] = length
    return tuple(shape)


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


def _stock_patches(prefix: str, tensors: dict[str, Tensor], names: dict, shapes: Shapes) -> dict | None:
    """ComfyUI's patches for one module; None unless they use every tensor and all have a weight.

    Its adapters log what is wrong when they are applied, and leave the weight as it was, so what
    can be checked before is checked here.
    """
    if prefix not in names:
        return None
    watched = _Watched(tensors)
    try:
        patches = comfy.lora.load_lora(watched, {prefix: names[prefix]}, log_missing=False)
    except Exception as error:
        raise AdapterError(f"{prefix}: ComfyUI cannot read its tensors ({type(error).__name__}: {error})") from error
    if not patches or watched.read != set(tensors) or any(weight_key(t) not in shapes for t in patches):
        return None
    for key, tensor in tensors.items():
        if tensor.is_floating_point():
            check_finite(key, tensor)
    if not any(key.endswith(".reshape_weight") for key in tensors):
        _check_shapes(prefix, tensors, patches, shapes)
    return patches


def _check_shapes(prefix: str, tensors: dict[str, Tensor], patches: dict, shapes: Shapes) -> None:
    known = {key: tensor for key, tensor in tensors.items() if split_key(key)[1] in TENSOR_SUFFIXES}
    adapters: list[Adapter] = list(parse(known, {}).adapters.values())
    for target, patch in patches.items():
        shape = shape_of(target, shapes)
        if isinstance(patch, tuple) and torch.is_tensor(patch[1][0]):
            found = [tuple(patch[1][0].shape)]
        else:
            found = [adapter.shape for adapter in adapters]
        for adapter_shape in found:
            if not fits(adapter_shape, shape):
                raise AdapterError(
                    f"{prefix}: changes a weight of {list(adapter_shape)}, "
                    f"the model's {weight_key(target)} is {list(shape)}"
                )


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
