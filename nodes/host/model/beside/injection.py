"""Puts adapters beside a model's weights when ComfyUI loads it, and takes them away when it does not sample with it."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Generator, Mapping
from contextlib import contextmanager

import torch
from comfy.patcher_extension import CallbacksMP, PatcherInjection, WrappersMP
from torch import Tensor, nn

from .....lyco_core.beside import Effect, Part, settled
from .....lyco_core.errors import TrainError
from ...protocols import ModelPatcher
from ..linear import load_dtype, whole_bias, whole_weight
from ..weights import linear_at
from .guard import checked_call, watch_calls
from .layers import Layer, Layers
from .seat import Seat, Seats, adds

KEY = "lyco"
"""Under which a patcher holds the one injection that has all of our adapters."""

_Settled = tuple[object, dict[object, tuple[Effect, ...]]]
"""`patches_uuid` of a patcher, and what acts beside each module over those patches."""


class Injection:
    """The layers of adapters, in the order in which they were loaded; a clone with more has its own."""

    def __init__(self, layers: tuple[Layer, ...]) -> None:
        self.layers = Layers(layers)
        self._constant = not any(layer.hook or layer.schedule for layer in layers)
        self._settled: weakref.WeakKeyDictionary[nn.Module, _Settled] = weakref.WeakKeyDictionary()
        self._sampling = False
        self._resting: tuple[object, Seats] | None = None
        """`patches_uuid` and the seats that are given back for a moment while sampling."""

    @property
    def parts(self) -> Mapping[str, tuple[Part, ...]]:
        """By module, of all layers."""
        return self.layers.parts

    def inject(self, patcher: ModelPatcher) -> None:
        """ComfyUI calls this once the model is on its device, and whenever it has applied hooks to it."""
        Seats.empty(patcher.model)
        resting, self._resting = self._resting, None
        if resting is not None and resting[0] == patcher.patches_uuid and resting[1].belong_to(patcher):
            seats = resting[1]
            seats.sit()
        else:
            seats = Seats(patcher, self.layers, self._taken(patcher))
        seats.hold(patcher.model)
        try:
            seats.tune(patcher)
        except BaseException:  # ComfyUI does not eject what it does not know to be injected
            Seats.empty(patcher.model)
            raise
        if not seats.proven:
            watch_calls(patcher.model)

    def _taken(self, patcher: ModelPatcher) -> list[Seat]:
        """A seat at every module; at none if one cannot be taken."""
        taken: list[Seat] = []
        try:
            for path, parts in self.parts.items():
                taken.append(self._seat(patcher, path, parts))
        except BaseException:
            for seat in taken:
                seat.leave()
            raise
        return taken

    def eject(self, patcher: ModelPatcher) -> None:
        """ComfyUI calls this before the model leaves its device, another MODEL samples, a clone ends, hooks change."""
        taken = Seats.of(patcher.model)
        if taken is not None and taken.belong_to(patcher) and Seats.empty(patcher.model) and self._sampling:
            self._resting = patcher.patches_uuid, taken

    def begin(self, patcher: ModelPatcher) -> None:
        """ComfyUI calls this before it samples, with the model loaded."""
        self._sampling = True
        taken = Seats.of(patcher.model)
        if taken is None or not taken.belong_to(patcher):
            patcher.eject_model()
            patcher.inject_model()

    def end(self, _: ModelPatcher) -> None:
        """ComfyUI calls this after sampling: what rests would keep its factors on the device."""
        self._sampling, self._resting = False, None

    def _seat(self, patcher: ModelPatcher, path: str, parts: tuple[Part, ...]) -> Seat:
        module = linear_at(patcher.model, path)
        bias = None if all(map(adds, parts)) else whole_bias(patcher, path)

        def settle(parts: tuple[Part, ...]) -> tuple[Effect, ...]:
            return self._effects(patcher, path, parts)

        seat = Seat(path, module, self.layers.of(path), settle, bias, varies=not self._constant)
        if (dtype := load_dtype(patcher)) is not None:
            seat.move(patcher.load_device, dtype)
        return seat

    def _effects(self, patcher: ModelPatcher, path: str, parts: tuple[Part, ...]) -> tuple[Effect, ...]:
        """Of one module; computed anew for other patches beneath, or, where they depend on each other, strengths."""
        if not (self._constant or all(map(adds, parts))):
            return _settle(patcher, path, parts)
        patches, effects = self._settled.get(patcher.model, (None, {}))
        if patches != patcher.patches_uuid:
            patches, effects = self._settled[patcher.model] = (patcher.patches_uuid, {})
        key = path, tuple((id(part.adapter), part.strength, part.rows) for part in parts)
        if key not in effects:
            effects[key] = _settle(patcher, path, parts)
        return effects[key]


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


def put_beside(patched: ModelPatcher, *layers: Layer) -> None:
    """Let `patched`, a clone, compute with `layers` beside what is beside its weights already."""
    injection = Injection((*layers_of(patched), *layers))
    patched.set_injections(KEY, [PatcherInjection(injection.inject, injection.eject)])
    patched.remove_wrappers_with_key(WrappersMP.APPLY_MODEL, KEY)
    patched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, checked_call)
    for moment, call in ((CallbacksMP.ON_PRE_RUN, injection.begin), (CallbacksMP.ON_CLEANUP, injection.end)):
        patched.remove_callbacks_with_key(moment, KEY)
        patched.add_callback_with_key(moment, KEY, call)


def layers_of(patcher: ModelPatcher) -> tuple[Layer, ...]:
    """What acts beside a patcher's weights."""
    held = patcher.get_injections(KEY)
    return held[0].inject.__self__.layers.layers if held else ()


def require_constant(patcher: ModelPatcher) -> None:
    """Raise `TrainError` if a strength changes over the steps: a training has no steps of a sampler."""
    if schedules := [str(layer.schedule) for layer in layers_of(patcher) if layer.schedule]:
        raise TrainError(
            f"the model's adapter has a strength_schedule ({schedules[0]}), which only a sampler can honour; connect "
            "the model without it"
        )


@contextmanager
def beside_while(patcher: ModelPatcher, *layers: Layer) -> Generator[None]:
    """Inside, a patcher has `layers` too, though it is no clone: for what a sampling brings."""
    injections = patcher.get_injections(KEY)
    moments = (CallbacksMP.ON_PRE_RUN, CallbacksMP.ON_CLEANUP)
    callbacks = {moment: dict(patcher.callbacks.get(moment, {})) for moment in moments}
    wrappers = dict(patcher.wrappers.get(WrappersMP.APPLY_MODEL, {}))
    try:
        with patcher.use_ejected():
            put_beside(patcher, *layers)
        yield
    finally:
        with patcher.use_ejected():
            if injections:
                patcher.set_injections(KEY, injections)
            else:
                patcher.remove_injections(KEY)
            patcher.callbacks.update(callbacks)
            patcher.wrappers[WrappersMP.APPLY_MODEL] = wrappers
