"""What acts beside a model's weights, adapter by adapter, and how strongly each does in a call of the model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TypeAlias

from .....lyco_core.beside import Part
from ...protocols import ModelPatcher
from ..schedule import Schedule, part_of

State: TypeAlias = tuple[tuple[int, float], ...]
"""The layers that act, in the order in which they do, each with what its strengths are multiplied by."""


@dataclasses.dataclass(frozen=True)
class Layer:
    """The parts of one adapter file, by module path."""

    parts: Mapping[str, tuple[Part, ...]]
    schedule: Schedule | None = None
    """How its strength changes over the steps."""
    hook: object | None = None
    """The reference of the hook that it is: it acts where a prompt has that hook. None: always."""


@dataclasses.dataclass(frozen=True)
class Layers:
    """All of one patcher, in the order in which they were loaded; hooks come after what acts always."""

    layers: tuple[Layer, ...]

    @property
    def parts(self) -> dict[str, tuple[Part, ...]]:
        """The parts of all, by module path."""
        joined: dict[str, tuple[Part, ...]] = {}
        for layer in self.layers:
            for path, parts in layer.parts.items():
                joined[path] = (*joined.get(path, ()), *parts)
        return joined

    def of(self, path: str) -> dict[int, tuple[Part, ...]]:
        """The parts of a module, by layer."""
        return {number: layer.parts[path] for number, layer in enumerate(self.layers) if path in layer.parts}

    @property
    def scheduled(self) -> bool:
        """Whether a strength changes over the steps."""
        return any(layer.schedule for layer in self.layers)

    def state(self, patcher: ModelPatcher, part: float) -> State:
        """What acts under the hooks that `patcher` has applied now, at a part of the way; what adds 0 does not."""
        found = [
            (number, 1.0 if layer.schedule is None else layer.schedule.at(part))
            for number, layer in enumerate(self.layers)
            if layer.hook is None
        ]
        numbers = {layer.hook: number for number, layer in enumerate(self.layers) if layer.hook is not None}
        group = (patcher.forced_hooks if patcher.is_clip else patcher.current_hooks) if numbers else None
        for hook in () if group is None else group.hooks:
            if hook.hook_ref in numbers:
                found.append((numbers[hook.hook_ref], float(hook.strength)))
        return tuple((number, factor) for number, factor in found if factor)


def part_at(patcher: ModelPatcher, sigma: float) -> float:
    """The part of the way at which a model is called with `sigma`."""
    return part_of(sigma, patcher.model.model_sampling.percent_to_sigma)
