"""Beside the weight or into it: decided for each weight by how it is stored."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from .....lyco_core.adapters import Adapter
from .....lyco_core.beside import Part
from .....lyco_core.errors import PlacementError
from ..patch import LycoPatch, row_order
from ..weights import (
    input_scale_of,
    is_linear,
    is_quantized,
    is_readable,
    is_rounded,
    rounding_error,
    told_format,
)

MODES = ("auto", "patch the weights", "apply while sampling")
"""How adapters are applied; auto: while sampling where a weight is quantized, by patches where it is not."""


@dataclasses.dataclass(frozen=True)
class Division:
    """Everything for one patcher, at its strength: what acts beside its weights, and what is patched into them."""

    parts: Mapping[str, tuple[Part, ...]]
    """By module path."""
    patches: Mapping[float, Mapping]
    """As `add_patches` takes them, by strength."""
    requantized: tuple[str, ...]
    """Keys of quantized weights among those that are patched."""
    places: frozenset
    """All that is in one of the two."""

    def lines(self) -> list[str]:
        """For the report."""
        lines: list[str] = []
        if self.parts:
            lines.append(
                f"{len(self.parts)} modules add it while sampling; nodes that read weights (Save Model, ModelMerge, "
                "Extract and Save Lora) see the model without it"
            )
        patched = sum(len(patches) for patches in self.patches.values())
        if self.parts and patched:
            lines.append(f"{patched} weights are patched: they are not quantized, or no linear module's")
        return lines

    def cost(self, patcher) -> list[str]:
        """What is lost where quantized weights are patched, for the report; measured on the first of them."""
        if not self.requantized:
            return []
        key = self.requantized[0]
        error = rounding_error(patcher, key)
        return [
            f"{len(self.requantized)} quantized weights are patched and rounded again, at the cost of the change: "
            f"relative error {error:.2g}, measured on {key}. The mode 'auto' leaves them as they are"
        ]


def divide(mode: str, patcher, groups: Mapping[float, Mapping]) -> Division:
    """What of `groups` acts beside the weights of `patcher`'s model.

    Args:
        mode: one of `MODES`.
        groups: patches by the place that `add_patches` takes, by strength. Those of another model are left out.

    Raises:
        PlacementError: a weight that cannot be read would have to be written.
    """
    keys = {key for key, _ in (*patcher.model.named_parameters(), *patcher.model.named_buffers())}
    places: set = set()
    parts: dict[str, tuple[Part, ...]] = {}
    patches: dict[float, dict] = {}
    requantized: list[str] = []
    for strength, group in groups.items():
        for place, patch in group.items():
            key, *rest = place if isinstance(place, tuple) else (place,)
            if key not in keys:
                continue
            places.add(place)
            quantized = is_quantized(patcher.model, key)
            if _wants_beside(mode, quantized) and _can_be_beside(patcher.model, key, *rest, patch=patch):
                path = key.removesuffix(".weight")
                parts[path] = (*parts.get(path, ()), _part(patch.adapter, strength, *rest))
                continue
            _require_readable(patcher.model, key, mode)
            patches.setdefault(strength, {})[place] = _fitting(patcher.model, key, patch)
            if quantized and is_rounded(patcher.model, key):
                requantized.append(key)
    return Division(parts, patches, tuple(requantized), frozenset(places))


def _wants_beside(mode: str, quantized: bool) -> bool:
    return mode == MODES[2] or (mode == MODES[0] and quantized)


def _can_be_beside(model, key: str, rows=None, function=None, patch: object = None) -> bool:
    """What ComfyUI's own adapters do, and columns instead of rows, have only patches."""
    return (
        isinstance(patch, LycoPatch) and is_linear(model, key) and (rows is None or (rows[0] == 0 and function is None))
    )


def _part(adapter: Adapter, strength: float, rows=None, function=None) -> Part:
    """What is at a place as ComfyUI spells it: all rows, (0, start, length), or all in the order of `function`."""
    if rows is not None:
        _, start, length = rows
        return Part(adapter, strength, (start, start + length))
    return Part(adapter, strength, order=None if function is None else row_order(function, adapter.shape[0]))


def _fitting(model, key: str, patch: object) -> object:
    """The patch for a weight as its module uses it."""
    inputs = input_scale_of(model.get_submodule(key.rpartition(".")[0])) if key.endswith(".weight") else None
    if inputs is None:
        return patch
    if not isinstance(patch, LycoPatch) or not inputs.all():
        raise PlacementError(
            f"{key}: its module multiplies the input by `pre_quant_scale` first, for which ComfyUI's own adapters are "
            "not made; choose the mode 'auto'"
        )
    return patch.behind(inputs)


def _require_readable(model, key: str, mode: str) -> None:
    if not is_readable(model, key):
        way_out = "choose the mode 'auto'" if mode == MODES[1] else "load another file of this model"
        raise PlacementError(
            f"{key}: is stored as {told_format(model, key)}, whose numbers ComfyUI cannot give, so that a patch would "
            f"be lost and the loaded model spoiled; {way_out}"
        )
