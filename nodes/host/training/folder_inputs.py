"""The inputs of *Training Dataset*: Musubi's options of a dataset as widgets."""

from __future__ import annotations

from typing import Any, cast

from comfy_api.latest import io

from ....lyco_core.errors import TrainError
from ....lyco_core.train.dataset import Dataset
from ....lyco_core.train.option import options_in
from ....lyco_core.train.rules import Choice, Number, Truth, Whole
from ..files import NONE
from ..schema import construct
from .folder_dataset import MEDIA
from .folders import folder_names
from .widgets import MOST

DATASET = "LYCO_DATASET"
"""The type of what *Training Dataset* gives: a `run.Data`."""

OFTEN = ("num_repeats", "enable_bucket")
"""The options that are not folded."""

STARTS = {"enable_bucket": True}
"""Where a widget starts from Musubi's documented file, and not from its default."""

_OPTIONS = {option.name: option for option in options_in(Dataset)}


def dataset_input(name: str, tooltip: str) -> io.Input:
    """An input for what *Training Dataset* gives."""
    return io.Custom(DATASET).Input(name, optional=True, tooltip=tooltip)


def dataset_output() -> io.Output:
    """What *Training Dataset* gives."""
    return io.Custom(DATASET).Output(display_name="dataset", tooltip="For Train Adapter, or the next Training Dataset.")


def folder_inputs() -> list[io.Input]:
    """The widgets that describe a dataset, the rare ones last."""
    folder = io.Combo.Input(
        "folder",
        options=[NONE, *folder_names()],
        default=NONE,
        tooltip="A folder in ComfyUI's input folder. Each image or video has a caption file of the same name.",
    )
    sides = [
        io.Int.Input(name, default=start, min=32, max=16384, step=16, tooltip=f"The {name} in pixels. {AREA}")
        for name, start in zip(("width", "height"), Dataset.resolution, strict=True)
    ]
    frames = io.String.Input(
        "target_frames",
        default="1",
        tooltip="Of videos: how many frames each piece has, each 4n + 1, for example 1, 25, 45.",
    )
    rare: list[io.Input] = [
        _rare(io.String.Input, "path", "", "The whole path of a folder elsewhere, in place of folder."),
        _rare(io.Combo.Input, "media", MEDIA[0], "What of the folder is taken.", options=list(MEDIA)),
        *(_widget(name) for name in RARE),
        _rare(io.Float.Input, "target_fps", 0.0, TARGET, min=0.0, max=1000.0, step=1.0),
    ]
    return [folder, *sides, *(_widget(name) for name in OFTEN), frames, *rare]


AREA = "With enable_bucket only the area of both counts."
TARGET = "With source_fps: frames a second of the model, 16 for Wan and 24 for HunyuanVideo; 0: take all."
RARE = (
    "caption_extension",
    "bucket_no_upscale",
    "batch_size",
    "frame_extraction",
    "frame_stride",
    "frame_sample",
    "max_frames",
    "source_fps",
    "cache_directory",
)


def _rare(kind: Any, name: str, default: object, tooltip: str, **more: Any) -> io.Input:
    return construct(kind, name, default=default, tooltip=tooltip, optional=True, advanced=True, **more)


def _widget(name: str) -> io.Input:
    option = _OPTIONS[name]
    rule, often = option.rule, name in OFTEN
    shared: dict[str, Any] = {
        "tooltip": option.help,
        "default": STARTS.get(name, option.default),
        "optional": not often,
        "advanced": not often,
    }
    if isinstance(rule, Whole):
        return construct(io.Int.Input, name, min=rule.least, max=MOST, **shared)
    if isinstance(rule, Number):
        return construct(io.Float.Input, name, min=0.0, max=1000.0, step=1.0, round=False, **shared)
    if isinstance(rule, Choice):
        return construct(io.Combo.Input, name, options=list(rule.values), **shared)
    if isinstance(rule, Truth):
        return construct(io.Boolean.Input, name, **shared)
    return construct(io.String.Input, name, **shared)


def with_defaults(inputs: dict[str, Any]) -> dict[str, Any]:
    """Inputs, and the defaults of those that an API workflow leaves out."""
    return {made.id: made.default for made in folder_inputs()} | inputs


def checked_inputs(values: object) -> dict[str, Any]:
    """The values of the widgets as a page tells them, each of its widget's type and bounds. Raises `TrainError`."""
    given = cast("dict[str, Any]", values) if isinstance(values, dict) else {}
    return {made.id: _checked(made, given.get(made.id, made.default)) for made in folder_inputs()}


def _checked(made: Any, value: Any) -> Any:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (number if isinstance(made.default, float) else type(value) is type(made.default)):
        raise TrainError(f"{made.id} is {value!r}, expected {type(made.default).__name__}")
    least, most = getattr(made, "min", None), getattr(made, "max", None)
    if number and least is not None and most is not None and not least <= value <= most:
        raise TrainError(f"{made.id} is {value!r}, expected {least} to {most}")
    return value
