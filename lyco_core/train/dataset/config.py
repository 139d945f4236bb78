"""The `general` and `datasets` tables of a configuration."""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from ...errors import TrainError
from ...io.toml import path_of
from ..option import OptionGroup, option
from ..rules import Choice, Number, Text, Truth, Whole

__all__ = ["EXTRACTIONS", "SOURCES", "STEPS", "Dataset", "parse_datasets"]

EXTRACTIONS = ("head", "chunk", "slide", "uniform", "full")

SOURCES = ("image_directory", "image_jsonl_file", "video_directory", "video_jsonl_file")
"""Where the items are: each dataset has exactly one."""

_PATHS = (*SOURCES, "control_directory", "cache_directory")

_ONE_FRAME = (
    "it is of training one frame among others, of FramePack, which ComfyUI has no model of, and of Wan, whose "
    "conditioning for that no node of ComfyUI's makes"
)

UNSUPPORTED = {
    "fp_1f_clean_indices": _ONE_FRAME,
    "fp_1f_target_index": _ONE_FRAME,
    "fp_1f_no_post": _ONE_FRAME,
}
"""Musubi's options of a dataset that are refused unless they are off -> why."""

STEPS = (16, 4)
"""`Dataset.steps` of most models."""

FORMER = {
    "flux_kontext_no_resize_control": "no_resize_control",
    "qwen_image_edit_no_resize_control": "no_resize_control",
    "qwen_image_edit_control_resolution": "control_resolution",
}
"""Names that Musubi's options of a dataset had before."""

WITHOUT_FRAMEPACK = ("fp_latent_window_size",)
"""Musubi's options of a dataset that do nothing without FramePack."""


@dataclasses.dataclass(frozen=True)
class Dataset(OptionGroup):
    """One entry of `datasets`, completed by what `general` says for all."""

    image_directory: str = option("", Text(), "A folder of images, each with a caption file beside it.")
    image_jsonl_file: str = option("", Text(), "Lines of {image_path, caption}.")
    video_directory: str = option("", Text(), "A folder of videos, each with a caption file beside it.")
    video_jsonl_file: str = option("", Text(), "Lines of {video_path, caption}.")
    control_directory: str = option(
        "",
        Text(),
        "A folder of control images, of the same names as the images; several for one: NAME_0, NAME_1. For videos: of "
        "control videos, or of folders of their frames.",
    )
    no_resize_control: bool = option(
        False, Truth(), "Control images keep their size, cut to multiples of 16, up to the area of control_resolution."
    )
    control_resolution: tuple[int, ...] = ()
    """Width and height, at whose area a control image keeps its own shape; empty: it comes to its item's size."""
    multiple_target: bool = option(
        False, Truth(), "For Qwen-Image-Layered: NAME_1, NAME_2 and so on, without captions, are the layers of NAME."
    )
    cache_directory: str = option("", Text(), "Where encoded items are kept; empty: .lyco_cache beside the items.")
    caption_extension: str = option(".txt", Text(), "Ending of the caption files.")
    batch_size: int = option(0, Whole(0), "Items in a batch; 0: as the training says.")
    num_repeats: int = option(1, Whole(1), "How often each item comes in an epoch.")
    resolution: tuple[int, int] = (960, 544)
    """Width and height."""
    enable_bucket: bool = option(
        False, Truth(), "Keeps the shape of each image, at the area of the resolution. Videos always keep theirs."
    )
    bucket_no_upscale: bool = option(False, Truth(), "With enable_bucket: small images stay small; videos do not.")
    target_frames: tuple[int, ...] = (1,)
    """Frames of the pieces of a video, each 4n + 1, for most models."""
    frame_extraction: str = option("head", Choice(EXTRACTIONS), "Which pieces of a video are taken.")
    frame_stride: int = option(1, Whole(1), "For slide: frames from one piece to the next.")
    frame_sample: int = option(1, Whole(1), "For uniform: how many pieces.")
    max_frames: int = option(129, Whole(1), "For full: at most so many.")
    source_fps: float = option(
        0.0, Number(), "Frames a second of the videos, to bring them to the model's; 0: take all."
    )

    steps: tuple[int, int] = STEPS
    """Sides are multiples of so many pixels, and frames one more than a multiple of so many, as the model has it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        given = [name for name in SOURCES if getattr(self, name)]
        if len(given) != 1:
            raise TrainError(
                f"a dataset names {', '.join(given) or 'no folder'}, expected exactly one of {', '.join(SOURCES)}"
            )
        if self.control_directory and not (self.image_directory or self.video_directory):
            raise TrainError(
                "control_directory goes with image_directory and video_directory; a list names an item's controls "
                "itself: control_path, or for several images control_path_0, control_path_1 and so on"
            )
        if self.multiple_target and self.is_video:
            raise TrainError("multiple_target is for images; a video has no layers")
        if re.search(r"[/\\:]", self.caption_extension):
            raise TrainError(
                f"caption_extension is '{self.caption_extension}', expected the end of a name, such as .txt"
            )
        for name, least, many in (
            ("resolution", 32, (2,)),
            ("target_frames", 1, range(1, 100)),
            ("control_resolution", 32, (0, 2)),
        ):
            values = getattr(self, name)
            if not all(Whole(least).holds(value) for value in values) or len(values) not in many:
                raise TrainError(f"{name} is {list(values)}, expected whole numbers of at least {least}")

    @property
    def source(self) -> str:
        """The folder or the list of files."""
        return next(getattr(self, name) for name in SOURCES if getattr(self, name))

    @property
    def is_video(self) -> bool:
        """Whether its items are videos."""
        return bool(self.video_directory or self.video_jsonl_file)

    @property
    def bucketed(self) -> bool:
        """Whether its items keep their aspect ratio. Musubi asks enable_bucket of images only."""
        return self.enable_bucket or self.is_video

    @property
    def stays_small(self) -> bool:
        """Whether items of fewer pixels than the resolution keep their size."""
        return self.bucket_no_upscale and not self.is_video

    @property
    def cache(self) -> str:
        """Where encoded items are kept."""
        if self.cache_directory:
            return self.cache_directory
        folder = self.source if os.path.isdir(self.source) else os.path.dirname(self.source)
        return os.path.join(folder, ".lyco_cache")

    def told(self) -> dict[str, Any]:
        """It in the metadata of a file: what is set, and folders by their last name, as Musubi has it."""
        named = {name: value for name, value in dataclasses.asdict(self).items() if value and name != "steps"}
        return {name: os.path.basename(v) if name.endswith(("_directory", "_file")) else v for name, v in named.items()}


def parse_datasets(settings: Mapping[str, Any], folder: Path) -> tuple[Dataset, ...]:
    """The datasets of a configuration with `general` and `datasets`; relative paths start from `folder`.

    Raises:
        TrainError: a name that is unknown or not supported, or a value that is not allowed.
        FileError: a value that cannot be a path.
    """
    general, entries = settings.get("general", {}), settings.get("datasets", [])
    if not isinstance(general, Mapping) or not isinstance(entries, (list, tuple)) or not entries:
        raise TrainError("there is no dataset: expected [[datasets]] with image_directory or video_directory")
    tables = cast(Sequence[object], entries)
    if not all(isinstance(entry, Mapping) for entry in tables):
        raise TrainError(f"datasets is {tables!r}, expected tables: [[datasets]]")
    return tuple(_dataset({**general, **cast(Mapping[str, Any], entry)}, folder) for entry in tables)


def _dataset(values: dict[str, Any], folder: Path) -> Dataset:
    known = [field.name for field in dataclasses.fields(Dataset) if field.name != "steps"]
    for former, name in FORMER.items():
        if former in values:
            values = {name: values.pop(former)} | values
    for name in [name for name in values if name in UNSUPPORTED or name in WITHOUT_FRAMEPACK]:
        if values.pop(name) not in (False, "", None) and name in UNSUPPORTED:
            raise TrainError(f"datasets: {name} is not supported here: {UNSUPPORTED[name]}")
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, [*known, *UNSUPPORTED, *WITHOUT_FRAMEPACK], 1, 0.75)
            raise TrainError(f"datasets: there is no option {name}" + (f"; do you mean {near[0]}?" if near else ""))
    for name in _PATHS:
        if name in values:
            values[name] = path_of(values[name], name, folder)
    for name, many in (("resolution", 2), ("control_resolution", 2), ("target_frames", 1)):
        if name in values:
            value = values[name]
            values[name] = tuple(value) if isinstance(value, (list, tuple)) else (value,) * many  # pyright: ignore
    return Dataset(**values)
