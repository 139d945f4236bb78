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
from .config import Dataset

__all__ = ["Media", "media_of"]

IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".avif")
VIDEOS = (".mp4", ".webm", ".avi", ".mkv", ".mov", ".flv", ".wmv", ".m4v", ".mpg", ".mpeg")


@dataclasses.dataclass(frozen=True)
class Media:
    """An image or a video."""

    path: str
    caption: str


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
    for name, stem in stems.items():
        yield Media(os.path.join(dataset.source, name), _text(stem + dataset.caption_extension).strip())


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
        if control := next((name for name in entry if name.startswith("control_path") and entry[name]), None):
            raise TrainError(
                f"{dataset.source}: line {number} has {control}: control images are not trained on here; take it out, "
                "or train in Musubi Tuner"
            )
        yield Media(os.path.join(folder, path), caption.strip())


def _text(path: str) -> str:
    try:
        return Path(path).read_text("utf-8-sig")  # Windows' editors begin a text with a mark
    except (OSError, UnicodeDecodeError) as error:
        raise TrainError(f"{path}: cannot be read as text: {error}") from None
