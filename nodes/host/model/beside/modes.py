"""Beside the weight or into it: decided for each weight by how it is stored."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from torch import nn

from .....lyco_core.adapters import Adapter
from .....lyco_core.beside import Part
from .....lyco_core.errors import PlacementError
from .....lyco_core.text import counted
from ...protocols import ModelPatcher
from ..linear import rounding_error
from ..patch import LycoPatch, row_order
from ..places import Change, Changes, Patch, Place
from ..weights import (
    holds,
    input_scale_of,
    is_linear,
    is_quantized,
    is_readable,
    is_rounded,
    modules_of,
    stored_as,
)

MODES = ("auto", "patch the weights", "apply while sampling")
"""How adapters are applied; auto: while sampling where a weight is quantized, by patches where it is not."""


@dataclasses.dataclass(frozen=True)
class Division:
    """Everything for one patcher: what acts beside its weights, and what is patched into them."""

    parts: Mapping[str, tuple[Part, ...]]
    """What acts beside a weight, by module path."""
    patched: Changes
    """What is patched into one."""
    requantized: tuple[str, ...]
    """Keys of quantized weights among those that are patched."""
    places: frozenset[Place]
    """All that is in one of the two."""

    def lines(self) -> list[str]:
        """How the changes are applied, for the report."""
        lines: list[str] = []
        if self.parts:
            lines.append(
                f"{counted(len(self.parts), 'module adds', 'modules add')} it while sampling; nodes that read weights "
                "(Save Model, ModelMerge, Extract and Save Lora) see the model without it"
            )
        if self.parts and self.patched:
            patched = counted(len(self.patched), "weight is", "weights are")
            lines.append(f"{patched} patched: not quantized, or no linear module's")
        return lines

    def cost(self, patcher: ModelPatcher) -> list[str]:
        """What is lost where quantized weights are patched, for the report; measured on the first of them."""
        if not self.requantized:
            return []
        key = self.requantized[0]
        error = rounding_error(patcher, key)
        return [
            f"{len(self.requantized)} quantized weights are patched and rounded again, at the cost of the change: "
            f"relative error {error:.2g}, measured on {key}. The mode 'auto' leaves them as they are"
        ]


def divide(mode: str, patcher: ModelPatcher, changes: Mapping[Place, Change]) -> Division:
    """What of `changes` acts beside the weights of `patcher`'s model.

    Args:
        mode: one of `MODES`.
        changes: those of another model are left out.

    Raises:
        PlacementError: a weight that cannot be read would have to be written.
    """
    modules = modules_of(patcher.model)
    places: set[Place] = set()
    parts: dict[str, tuple[Part, ...]] = {}
    patched: Changes = {}
    requantized: list[str] = []
    for place, (patch, strength) in changes.items():
        key = place.key
        path, _, name = key.rpartition(".")
        module = modules.get(path)
        if module is None or not holds(module, name):
            continue
        places.add(place)
        quantized = is_quantized(module, name)
        if _wants_beside(mode, quantized) and isinstance(patch, LycoPatch) and _can_be_beside(module, place):
            parts[path] = (*parts.get(path, ()), _part(patch.adapter, strength, place))
            continue
        _require_readable(module, key, mode)
        patched[place] = Change(_fitting(module, key, patch), strength)
        if quantized and is_rounded(module, name):
            requantized.append(key)
    return Division(parts, patched, tuple(requantized), frozenset(places))


def _wants_beside(mode: str, quantized: bool) -> bool:
    return mode == MODES[2] or (mode == MODES[0] and quantized)


def _can_be_beside(module: nn.Module, place: Place) -> bool:
    """Columns instead of rows, and rows that are reordered too, have only patches."""
    return is_linear(module, place.key.rpartition(".")[2]) and (
        place.rows is None or (place.rows[0] == 0 and place.reorder is None)
    )


def _part(adapter: Adapter, strength: float, place: Place) -> Part:
    """What acts beside the weight of a place: on some rows, or on all, in their order there."""
    if place.rows is not None:
        _, start, length = place.rows
        return Part(adapter, strength, (start, start + length))
    return Part(adapter, strength, order=None if place.reorder is None else row_order(place.reorder, adapter.shape[0]))


def _fitting(module: nn.Module, key: str, patch: Patch) -> Patch:
    """The patch for a weight as its module uses it."""
    inputs = input_scale_of(module) if key.endswith(".weight") else None
    if inputs is None:
        return patch
    if not isinstance(patch, LycoPatch) or not inputs.all():
        raise PlacementError(
            f"{key}: its module multiplies the input by `pre_quant_scale` first, for which ComfyUI's own adapters are "
            "not made; choose the mode 'auto'"
        )
    return patch.behind(inputs)


def _require_readable(module: nn.Module, key: str, mode: str) -> None:
    name = key.rpartition(".")[2]
    if not is_readable(module, name):
        way_out = "choose the mode 'auto'" if mode == MODES[1] else "load another file of this model"
        raise PlacementError(
            f"{key}: is stored as {stored_as(module, name)}, whose numbers ComfyUI cannot give, so that a patch would "
            f"be lost and the loaded model spoiled; {way_out}"
        )
