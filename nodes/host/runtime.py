"""Adapters that act while the model samples, beside its weights instead of in them.

Quantized weights stay as they are, and nothing is rounded to their precision. Costs time in every
step, where a patch costs it once.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Mapping
from typing import Any

import torch
from comfy.patcher_extension import PatcherInjection
from torch import Tensor

from ...lyco_core.adapters import Adapter
from ...lyco_core.errors import PlacementError
from .patch import LycoPatch, row_order
from .weights import is_quantized

MODES = ("auto", "patch the weights", "apply while sampling")
"""How an adapter is applied; auto: while sampling, where the weights that it changes are quantized."""


@dataclasses.dataclass(frozen=True)
class Part:
    """What is added to some columns of a module's output."""

    adapter: Adapter
    strength: float
    start: int
    length: int | None
    """None for all of them."""
    order: Tensor | None = None
    """Which of the adapter's columns each of these is; None: they follow each other."""

    def add(self, x: Tensor, output: Tensor) -> None:
        """Add it in place."""
        band = output if self.length is None else output.narrow(-1, self.start, self.length)
        added = self.adapter.apply(x)
        band.add_(added if self.order is None else added[..., self.order], alpha=self.strength)

    def moved(self, x: Tensor) -> Part:
        """Its factors on x's device, in x's dtype."""
        order = None if self.order is None else self.order.to(x.device)
        return dataclasses.replace(self, adapter=self.adapter.to(x.device, x.dtype), order=order)


class Hook:
    """All parts of one adapter file for one module."""

    def __init__(self, parts: tuple[Part, ...]) -> None:
        self._parts = parts
        self._moved: dict[tuple[torch.device, torch.dtype], tuple[Part, ...]] = {}

    def __call__(self, _: torch.nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        x = args[0]
        place = x.device, x.dtype
        if place not in self._moved:
            self._moved = {place: tuple(part.moved(x) for part in self._parts)}
        # Nobody else has a Linear's output yet; inference is not the only use of a MODEL, though.
        output = output.clone() if output.requires_grad else output
        for part in self._moved[place]:
            part.add(x, output)
        return output

    def forget(self) -> None:
        """Free the moved factors."""
        self._moved = {}


class Injection:
    """Puts hooks onto a model's modules when ComfyUI loads it, and takes them off when it does not sample with it."""

    def __init__(self, hooks: Mapping[str, Hook]) -> None:
        self._hooks = hooks
        self._handles: list[Any] = []

    def inject(self, patcher) -> None:
        """ComfyUI calls this once the model is on its device."""
        self.eject(patcher)
        for path, hook in self._hooks.items():
            self._handles.append(patcher.model.get_submodule(path).register_forward_hook(hook))

    def eject(self, _) -> None:
        """ComfyUI calls this before the model leaves it, or another MODEL samples."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        for hook in self._hooks.values():
            hook.forget()


def add_injection(patched, groups: Mapping[float, Mapping], strength: float) -> int:
    """Let `patched`, a clone, add what `add_patches` would have put into the weights; how many modules do.

    Raises:
        PlacementError: something changes no linear module's weight, or by another algorithm's rule.
    """
    parts: dict[str, list[Part]] = {}
    for multiplier, patches in groups.items():
        for target, patch in patches.items():
            _require_linear(patched.model, _key(target), patch)
            part = _part(target, patch.adapter, strength * multiplier)
            parts.setdefault(_key(target).removesuffix(".weight"), []).append(part)
    injection = Injection({path: Hook(tuple(found)) for path, found in parts.items()})
    patched.set_injections(f"lyco-{uuid.uuid4()}", [PatcherInjection(injection.inject, injection.eject)])
    return len(parts)


def _part(target, adapter: Adapter, strength: float) -> Part:
    """At a place as ComfyUI spells it: a weight's key, or (key, rows or None), or (key, rows or None, function)."""
    _, rows, function = (*target, None)[:3] if isinstance(target, tuple) else (target, None, None)
    _, start, length = rows or (0, 0, None)
    return Part(adapter, strength, start, length, None if function is None else row_order(function, adapter.shape[0]))


def _require_linear(model, key: str, patch: object) -> None:
    if not _is_linear(model, key):
        raise PlacementError(f"{key}: only linear modules take an adapter while sampling; patch the weights instead")
    if not acts_beside(patch):
        raise PlacementError(
            f"{key}: what the file has for it is computed from the weight itself (DoRA, OFT and the like), which "
            "cannot be done while sampling; patch the weights instead"
        )


def acts_beside(patch: object) -> bool:
    """Whether what a patch adds is a function of the module's input alone."""
    return isinstance(patch, LycoPatch) and not patch.adapter.needs_base


def _is_linear(model, key: str) -> bool:
    path, _, last = key.rpartition(".")
    return last == "weight" and hasattr(model.get_submodule(path), "in_features")


def wants_runtime(mode: str, model, groups: Mapping[float, Mapping]) -> bool:
    """Whether an adapter is applied while sampling; auto does so where it can, and where it matters."""
    if mode != MODES[0]:
        return mode == MODES[2]
    found = [(_key(target), patch) for patches in groups.values() for target, patch in patches.items()]
    possible = all(acts_beside(patch) and _is_linear(model, key) for key, patch in found)
    return possible and any(is_quantized(model, key) for key, _ in found)


def _key(target) -> str:
    return target[0] if isinstance(target, tuple) else target
