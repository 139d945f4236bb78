"""Puts adapters beside a model's weights when ComfyUI loads it, and takes them away when it does not sample with it."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Mapping

import torch
from comfy.patcher_extension import PatcherInjection, WrappersMP
from torch import Tensor, nn

from .....lyco_core.beside import Effect, Part, settled
from ...protocols import ModelPatcher
from ..linear import load_dtype, whole_bias, whole_weight
from ..weights import linear_at
from .guard import checked_call, watch_calls
from .seat import Seat, Seats

KEY = "lyco"
"""Under which a patcher holds the one injection that has all of our adapters."""

_Settled = tuple[object, dict[str, tuple[Effect, ...]]]
"""`patches_uuid` of a patcher, and what acts beside each module over those patches."""


class Injection:
    """The parts of every module, in the order in which the adapters were loaded; a clone with more has its own."""

    def __init__(self, parts: Mapping[str, tuple[Part, ...]]) -> None:
        self.parts = parts
        self._settled: weakref.WeakKeyDictionary[nn.Module, _Settled] = weakref.WeakKeyDictionary()

    def inject(self, patcher: ModelPatcher) -> None:
        """ComfyUI calls this once the model is on its device."""
        Seats.empty(patcher.model)
        effects = self._effects(patcher)
        seats = [self._seat(patcher, path, found) for path, found in effects.items()]
        Seats(patcher, seats).hold(patcher.model)
        watch_calls(patcher.model)

    def eject(self, patcher: ModelPatcher) -> None:
        """ComfyUI calls this before the model leaves its device, or another MODEL samples, or a clone ends."""
        taken = Seats.of(patcher.model)
        if taken is not None and taken.belong_to(patcher):
            Seats.empty(patcher.model)

    def _effects(self, patcher: ModelPatcher) -> Mapping[str, tuple[Effect, ...]]:
        """By module; computed anew only for another model, or other patches beneath."""
        patches, effects = self._settled.get(patcher.model, (None, {}))
        if patches != patcher.patches_uuid:
            effects = {path: _settle(patcher, path, parts) for path, parts in self.parts.items()}
            self._settled[patcher.model] = (patcher.patches_uuid, effects)
        return effects

    def _seat(self, patcher: ModelPatcher, path: str, effects: tuple[Effect, ...]) -> Seat:
        module = linear_at(patcher.model, path)
        bias = None if all(effect.adds for effect in effects) else whole_bias(patcher, path)
        seat = Seat(path, module, effects, bias)
        if (dtype := load_dtype(patcher)) is not None:
            seat.move(patcher.load_device, dtype)
        return seat


@torch.inference_mode(False)
@torch.no_grad()
def _settle(patcher: ModelPatcher, path: str, parts: tuple[Part, ...]) -> tuple[Effect, ...]:
    """The effects of one module, of tensors that gradients can flow past: what was made in inference mode is copied."""
    module = linear_at(patcher.model, path)
    whole: list[Tensor] = []

    def read(start: int, stop: int) -> Tensor:
        if not whole:
            whole.append(whole_weight(patcher, path))
        return whole[0][start:stop].float().clone()

    shape = module.out_features, module.in_features
    return settled([_normal(part) for part in parts], read, shape, patcher.load_device)


def _normal(part: Part) -> Part:
    adapter = part.adapter.with_tensors({name: _copied(tensor) for name, tensor in part.adapter.tensors.items()})
    return dataclasses.replace(part, adapter=adapter, order=None if part.order is None else _copied(part.order))


def _copied(tensor: Tensor) -> Tensor:
    return tensor.clone() if tensor.is_inference() else tensor


def put_beside(patched: ModelPatcher, parts: Mapping[str, tuple[Part, ...]]) -> None:
    """Let `patched`, a clone, compute with `parts` beside what is beside its weights already."""
    held = patched.get_injections(KEY)
    before = held[0].inject.__self__.parts if held else {}
    joined = {path: (*before.get(path, ()), *parts.get(path, ())) for path in (*before, *parts)}
    injection = Injection(joined)
    patched.set_injections(KEY, [PatcherInjection(injection.inject, injection.eject)])
    patched.remove_wrappers_with_key(WrappersMP.APPLY_MODEL, KEY)
    patched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, checked_call)
