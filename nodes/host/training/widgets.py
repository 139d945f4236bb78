"""The options of a training as widgets, and back."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable
from typing import Any

import folder_paths
from comfy_api.latest import io

from ....lyco_core.errors import LycoError, TrainError
from ....lyco_core.train.dataset import frames_of
from ....lyco_core.train.option import Option
from ....lyco_core.train.options import TrainOptions, every_option, train_options
from ....lyco_core.train.prompts import read_prompts
from ....lyco_core.train.rules import Choice, FileName, Number, Texts, Truth, Whole
from ....lyco_core.train.sample_prompt import located
from ..files import NONE, Stamp, adapter_names, adapter_path, stamp
from ..schema import construct, lines
from .folders import input_file

MOST = 2**31 - 1

FOLDED = {"factor", "batch_size", "seed", "timestep_sampling", "discrete_flow_shift"}
"""What is folded with the rare ones, so that the node fits a screen, though its place among the values is before."""


def option_inputs() -> list[io.Input]:
    """A widget for every option, the rare ones marked as such, after the others."""
    made = [option for _, option in every_option() if option.graph]
    return [_widget(option) for option in sorted(made, key=lambda option: (option.rare, option.since))]


def _widget(option: Option) -> io.Input:
    rule, name = option.rule, option.called
    shared: dict[str, Any] = {
        "tooltip": option.help,
        "default": option.node_default,
        "optional": option.rare,
        "advanced": option.rare or option.called in FOLDED,
    }
    if isinstance(rule, FileName):
        shared.pop("default")
        return construct(io.Combo.Input, name, options=[NONE, *FILES[rule.kind].names()], default=NONE, **shared)
    if isinstance(rule, Whole):
        if name == "seed":  # ComfyUI would offer to change it after every run, and train again
            shared["control_after_generate"] = False
        return construct(io.Int.Input, name, min=rule.least, max=MOST, **shared)
    if isinstance(rule, Number):
        low, high = (limit if math.isfinite(limit) else math.copysign(1e6, limit) for limit in (rule.least, rule.most))
        return construct(io.Float.Input, name, min=low, max=high, step=_step(shared["default"]), round=False, **shared)
    if isinstance(rule, Choice):
        return construct(io.Combo.Input, name, options=list(rule.values), **shared)
    if isinstance(rule, Truth):
        return construct(io.Boolean.Input, name, **shared)
    if isinstance(rule, Texts):
        shared["tooltip"] += " One a line."
        return construct(io.String.Input, name, multiline=True, **shared | {"default": ""})
    return construct(io.String.Input, name, **shared)


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


def state_path(name: str) -> str:
    """The path of a state in output/loras."""
    return os.path.join(folder_paths.get_output_directory(), "loras", os.path.basename(name))


@dataclasses.dataclass(frozen=True)
class _Files:
    """What a list of files offers."""

    names: Callable[[], list[str]]
    path: Callable[[str], str]


FILES = {"adapter": _Files(adapter_names, adapter_path), "state": _Files(state_names, state_path)}
"""`FileName.kind` -> the files to choose from."""


def widget_options(values: dict[str, Any]) -> TrainOptions:
    """The options that widgets say; names of files become paths. Raises `TrainError`."""
    settings: dict[str, Any] = {}
    for _, option in every_option():
        if option.called not in values:
            continue
        value = values[option.called]
        if isinstance(option.rule, Texts):
            value = lines(value)
        elif isinstance(option.rule, FileName):
            value = "" if value == NONE else FILES[option.rule.kind].path(value)
        settings[option.called] = value
    return train_options(settings)


def fingerprint(values: dict[str, list[Any]]) -> list[Stamp]:
    """The stamps of the files that the widgets name, which change when those do."""
    return [
        stamp(FILES[option.rule.kind].path(value))
        for _, option in every_option()
        if option.graph and isinstance(option.rule, FileName)
        for value in values.get(option.called, ())
        if value not in (NONE, None)
    ] + _pictures(values)


def _pictures(values: dict[str, list[Any]]) -> list[Stamp]:
    """Those of the pictures that prompts name; of prompts that cannot be read, none: running them says why."""
    try:
        texts = [text for text in values.get("sample_prompts", ()) if isinstance(text, str)]
        prompts = [one for text in texts for one in located(read_prompts(lines(text)), input_file)]
        paths = [path for one in prompts for path in one.paths()]
        files = [file for path in paths for file in (frames_of(path) if os.path.isdir(path) else (path,))]
    except LycoError:
        return []
    return [stamp(file) for file in files]


def single(name: str, values: list[Any]) -> Any:
    """The one value of an input that is no list of items. Raises `TrainError` for several."""
    if len(values) != 1:
        raise TrainError(f"{name} got {len(values)} values, expected one; connect a single one")
    return values[0]
