"""The images or videos of a dataset, and their captions."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import TrainError
from ...text import shorten
from .config import CONTROL_VIDEO, Dataset
from .controls import controls_in, controls_of_line

__all__ = ["Media", "media_of"]

IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".avif")
VIDEOS = (".mp4", ".webm", ".avi", ".mkv", ".mov", ".flv", ".wmv", ".m4v", ".mpg", ".mpeg")


@dataclasses.dataclass(frozen=True)
class Media:
    """An image or a video."""

    path: str
    caption: str
    controls: tuple[str, ...] = ()
    """The images that an edit model sees beside it, in their order."""


def media_of(dataset: Dataset) -> list[Media]:
    """Everything in the dataset, in the order of its names or lines.

    Raises `TrainError` if there is nothing, or something without a caption.
    """
    listed = dataset.image_jsonl_file or dataset.video_jsonl_file
    found = list(_listed(dataset) if listed else _in_folder(dataset))
    if not found:
        kind = "videos" if dataset.is_video else "images"
        endings = " ".join(VIDEOS if dataset.is_video else IMAGES)
        raise TrainError(f"{dataset.source}: there are no {kind} in it, expected files that end in {endings}")
    return found


def _in_folder(dataset: Dataset) -> Iterator[Media]:
    endings = VIDEOS if dataset.is_video else IMAGES

    def is_media(name: str) -> bool:
        return name.lower().endswith(endings) and not name.startswith(".")  # macOS leaves ._NAME on other disks

    try:
        names = sorted(name for name in os.listdir(dataset.source) if is_media(name))
    except OSError as error:
        raise TrainError(f"{dataset.source}: cannot be read: {error.strerror}") from None
    stems = {name: os.path.join(dataset.source, os.path.splitext(name)[0]) for name in names}
    lacking = [name for name, stem in stems.items() if not os.path.exists(stem + dataset.caption_extension)]
    if lacking:
        raise TrainError(
            f"{dataset.source}: {len(lacking)} of {len(names)} have no caption ({shorten(lacking)}); put a file of the "
            f"same name that ends in {dataset.caption_extension} beside each; it may be empty"
        )
    controls = controls_in(dataset.control_directory, names, IMAGES) if dataset.control_directory else {}
    if dataset.control_directory and (without := [name for name in names if name not in controls]):
        raise TrainError(
            f"{dataset.control_directory}: {len(without)} of {len(names)} images have no control in it "
            f"({shorten(without)}); put an image of the same name there for each, or several: NAME_0, NAME_1"
        )
    for name, stem in stems.items():
        caption = _text(stem + dataset.caption_extension).strip()
        yield Media(os.path.join(dataset.source, name), caption, controls.get(name, ()))


def _listed(dataset: Dataset) -> Iterator[Media]:
    folder, key = os.path.dirname(dataset.source), "video_path" if dataset.is_video else "image_path"
    for number, line in enumerate(_text(dataset.source).split("\n"), 1):
        if not line.strip():
            continue
        try:
            entry: Any = json.loads(line)
            path, caption = str(entry[key]), str(entry["caption"])
        except (ValueError, KeyError, TypeError):
            raise TrainError(
                f'{dataset.source}: line {number} cannot be read, expected {{"{key}": …, "caption": …}}'
            ) from None
        controls = controls_of_line(entry, folder, f"{dataset.source}: line {number}")
        if controls and dataset.is_video:
            raise TrainError(f"{dataset.source}: line {number} has a control_path: {CONTROL_VIDEO}")
        yield Media(os.path.join(folder, path), caption.strip(), controls)


def _text(path: str) -> str:
    try:
        return Path(path).read_text("utf-8-sig")  # Windows' editors begin a text with a mark
    except (OSError, UnicodeDecodeError) as error:
        raise TrainError(f"{path}: cannot be read as text: {error}") from None
