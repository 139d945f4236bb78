"""Beside the weight or into it: decided for each weight by how it is stored."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from ....lyco_core.beside import Part
from ....lyco_core.errors import PlacementError
from ..patch import LycoPatch
from ..weights import is_linear, is_quantized, is_readable, told_format

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
            lines.append(f"{len(self.parts)} modules add it while sampling")
        patched = sum(len(patches) for patches in self.patches.values())
        if self.parts and patched:
            lines.append(f"{patched} weights are patched: they are not quantized, or no linear module's")
        return lines


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
            if _wants_beside(mode, quantized) and _can_be_beside(patcher.model, key, rest, patch):
                path = key.removesuffix(".weight")
                parts[path] = (*parts.get(path, ()), Part(patch.adapter, strength, _rows(rest)))
                continue
            _require_readable(patcher.model, key, mode)
            patches.setdefault(strength, {})[place] = patch
            if quantized:
                requantized.append(key)
    return Division(parts, patches, tuple(requantized), frozenset(places))


def _wants_beside(mode: str, quantized: bool) -> bool:
    return mode == MODES[2] or (mode == MODES[0] and quantized)


def _can_be_beside(model, key: str, rest: list, patch: object) -> bool:
    """Rows in another order than the file's, and what ComfyUI's own adapters do, have only patches."""
    reordered = len(rest) > 1 and rest[1] is not None
    by_rows = not rest or rest[0] is None or rest[0][0] == 0
    return isinstance(patch, LycoPatch) and is_linear(model, key) and by_rows and not reordered


def _rows(rest: list) -> tuple[int, int] | None:
    if not rest or rest[0] is None:
        return None
    _, start, length = rest[0]
    return start, start + length


def _require_readable(model, key: str, mode: str) -> None:
    if not is_readable(model, key):
        way_out = "choose the mode 'auto'" if mode == MODES[1] else "load another file of this model"
        raise PlacementError(
            f"{key}: is stored as {told_format(model, key)}, whose numbers ComfyUI cannot give, so that a patch would "
            f"be lost and the loaded model spoiled; {way_out}"
        )
