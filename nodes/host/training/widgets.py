"""The options of a training as widgets, and back."""

from __future__ import annotations

import dataclasses
import math
import os
from typing import Any

import folder_paths
from comfy_api.latest import io

from ....lyco_core.errors import TrainError
from ....lyco_core.train.option import Choice, Number, Texts, Truth, Whole
from ....lyco_core.train.options import TrainOptions, option_fields, train_options
from ..files import NONE, Stamp, adapter_names, adapter_path, stamp
from ..schema import known, lines

DEFAULTS: dict[str, Any] = {"algorithm": "lokr", "network_dim": 32, "network_alpha": 16.0, "timestep_sampling": "auto"}
"""Those of the node where they are not the configuration's: what Musubi's pages use."""

RENAMED = {"algorithm": "network_module"}
"""Options whose widget has Musubi's name for them."""

MOST = 2**31 - 1


def option_inputs() -> list[io.Input]:
    """A widget for every option, the rare ones marked as such, after the others."""
    fields = [field for _, field in option_fields()]
    return [_widget(field) for field in sorted(fields, key=lambda field: field.metadata["rare"])]


def _widget(field: dataclasses.Field[Any]) -> io.Input:
    rule, name = field.metadata["rule"], RENAMED.get(field.name, field.name)
    shared = {
        "tooltip": field.metadata["told"],
        "default": DEFAULTS.get(field.name, field.default),
        "optional": field.metadata["rare"],
        "advanced": field.metadata["rare"],
    }
    if name in FILES:
        shared.pop("default")
        return known(io.Combo.Input, name, options=[NONE, *FILES[name]()], default=NONE, **shared)
    if isinstance(rule, Whole):
        if name == "seed":  # ComfyUI would offer to change it after every run, and train again
            shared["control_after_generate"] = False
        return known(io.Int.Input, name, min=rule.least, max=MOST, **shared)
    if isinstance(rule, Number):
        low, high = (limit if math.isfinite(limit) else math.copysign(1e6, limit) for limit in (rule.least, rule.most))
        return known(io.Float.Input, name, min=low, max=high, step=_step(shared["default"]), round=False, **shared)
    if isinstance(rule, Choice):
        return known(io.Combo.Input, name, options=list(rule.values), **shared)
    if isinstance(rule, Truth):
        return known(io.Boolean.Input, name, **shared)
    if isinstance(rule, Texts):
        shared["tooltip"] += " One a line."
        return known(io.String.Input, name, multiline=True, **shared | {"default": ""})
    return known(io.String.Input, name, **shared)


def _step(default: float) -> float:
    """How far an arrow of the widget goes."""
    return 0.01 if default == 0 or default >= 0.1 else default / 10


def state_names() -> list[str]:
    """States of trainings in output/loras, the newest first."""
    folder = os.path.join(folder_paths.get_output_directory(), "loras")
    if not os.path.isdir(folder):
        return []
    names = [name for name in os.listdir(folder) if name.endswith("-state.pt")]
    return sorted(names, key=lambda name: os.path.getmtime(os.path.join(folder, name)), reverse=True)


FILES = {"network_weights": adapter_names, "resume": state_names}
"""Options that name a file -> what there is."""


def options_of(values: dict[str, Any]) -> TrainOptions:
    """The options that widgets say; names of files become paths. Raises `TrainError`."""
    settings: dict[str, Any] = {}
    for _, field in option_fields():
        name = RENAMED.get(field.name, field.name)
        if name not in values:
            continue
        value = values[name]
        if isinstance(field.metadata["rule"], Texts):
            value = lines(value)
        if name in FILES:
            value = "" if value == NONE else _path(name, values[name])
        settings[name] = value
    return train_options(settings)


def fingerprint(values: dict[str, list[Any]]) -> list[Stamp]:
    """What changes when a file that the widgets name does."""
    named = [(name, value) for name in FILES for value in values.get(name, ()) if value not in (NONE, None)]
    return [stamp(_path(name, value)) for name, value in named]


def _path(name: str, value: str) -> str:
    if name == "network_weights":
        return adapter_path(value)
    return os.path.join(folder_paths.get_output_directory(), "loras", os.path.basename(value))


def single(name: str, values: list[Any]) -> Any:
    """The one value of an input that is no list of items. Raises `TrainError` for several."""
    if len(values) != 1:
        raise TrainError(f"{name} got {len(values)} values, expected one; connect a single one")
    return values[0]
