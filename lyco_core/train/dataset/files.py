"""The images or videos of a dataset, and their captions."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...errors import TrainError
from ...text import shorten
from .config import Dataset
from .controls import belonging, control_videos_in, controls_in, numbered_in_line

__all__ = ["IMAGES", "VIDEOS", "Media", "frames_of", "kinds_in", "media_of"]

IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".avif")
VIDEOS = (".mp4", ".webm", ".avi", ".mkv", ".mov", ".flv", ".wmv", ".m4v", ".mpg", ".mpeg")


@dataclasses.dataclass(frozen=True)
class Media:
    """An image or a video."""

    path: str
    """Of a file; a video may be a folder of images, its frames in the order of their names."""
    caption: str
    controls: tuple[str, ...] = ()
    """The images that an edit model sees beside it, in their order; of a video, that which lies over it."""
    layers: tuple[str, ...] = ()
    """What an image is made of, from the first layer on."""


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


def kinds_in(folder: str, caption_extension: str) -> tuple[bool, bool]:
    """Whether a folder has images, and whether it has videos. Raises `TrainError` if it cannot be read."""
    return bool(_named(folder, IMAGES)), bool(_videos(folder, caption_extension))


def frames_of(folder: str) -> list[str]:
    """The paths of the images of a folder, in the order of their names. Raises `TrainError`."""
    names = _named(folder, IMAGES)
    if not names:
        raise TrainError(f"{folder}: has no frames, expected images that end in {' '.join(IMAGES)}")
    return [os.path.join(folder, name) for name in names]


def _named(folder: str, endings: tuple[str, ...]) -> list[str]:
    """Names in a folder that end so; macOS leaves ._NAME on other disks."""
    try:
        return sorted(n for n in os.listdir(folder) if n.lower().endswith(endings) and not n.startswith("."))
    except OSError as error:
        raise TrainError(f"{folder}: cannot be read: {error.strerror}") from None


def _videos(folder: str, caption_extension: str) -> list[str]:
    """Names of the videos in a folder: files, and folders of frames that have a caption beside them."""
    captions = (os.path.splitext(name)[0] for name in _named(folder, (caption_extension.lower(),)))
    framed = [name for name in captions if os.path.isdir(os.path.join(folder, name))]
    return sorted([*_named(folder, VIDEOS), *framed])


def _in_folder(dataset: Dataset) -> Iterator[Media]:
    source, extension = dataset.source, dataset.caption_extension
    names = _videos(source, extension) if dataset.is_video else _named(source, IMAGES)
    layers = _layers(source, names, extension) if dataset.multiple_target else {}
    others = {os.path.basename(path) for paths in layers.values() for path in paths}
    names = [name for name in names if name not in others]
    paths = {name: os.path.join(source, name) for name in names}
    stems = {name: path if os.path.isdir(path) else os.path.splitext(path)[0] for name, path in paths.items()}
    lacking = [name for name, stem in stems.items() if not os.path.exists(stem + extension)]
    if lacking:
        raise TrainError(
            f"{source}: {len(lacking)} of {len(names)} have no caption ({shorten(lacking)}); put a file of the "
            f"same name that ends in {extension} beside each, which may be empty"
        )
    controls = _controls(dataset, {name: os.path.basename(stem) for name, stem in stems.items()})
    for name, stem in stems.items():
        yield Media(paths[name], _text(stem + extension).strip(), controls.get(name, ()), layers.get(name, ()))


def _layers(folder: str, names: list[str], extension: str) -> dict[str, tuple[str, ...]]:
    """Name of an image that has a caption -> its layers, which have none."""
    captions = {name: os.path.join(folder, os.path.splitext(name)[0] + extension) for name in names}
    whole = [name for name in names if os.path.exists(captions[name])]
    return belonging(folder, whole, set(names) - set(whole))


_CONTROLS = {
    False: ("images", "an image of the same name there for each, or several: NAME_0, NAME_1"),
    True: ("videos", "a video of the same name there for each, or a folder of its frames"),
}
"""Whether a dataset is of videos -> what its items are called, and what to do for those without a control."""


def _controls(dataset: Dataset, stems: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Name of an item -> its controls in `control_directory`, if there is one; `stems`: names without endings."""
    if not (folder := dataset.control_directory):
        return {}
    found = control_videos_in(folder, stems, VIDEOS) if dataset.is_video else controls_in(folder, list(stems), IMAGES)
    if without := [name for name in stems if name not in found]:
        kinds, put = _CONTROLS[dataset.is_video]
        raise TrainError(
            f"{folder}: {len(without)} of {len(stems)} {kinds} have no control in it ({shorten(without)}); put {put}"
        )
    return found


def _listed(dataset: Dataset) -> Iterator[Media]:
    folder, key = os.path.dirname(dataset.source), "video_path" if dataset.is_video else "image_path"
    for number, line in enumerate(_text(dataset.source).split("\n"), 1):
        if not line.strip():
            continue
        try:
            entry: Any = json.loads(line)
            caption = str(entry["caption"])
            if dataset.multiple_target and not (entry.get(key) or entry.get(f"{key}_0")):
                raise KeyError(key)  # the first of its layers is not the picture
            path, *layers = (
                numbered_in_line(key, entry, folder, f"{dataset.source}: line {number}")
                if dataset.multiple_target
                else [os.path.join(folder, str(entry[key]))]
            )
        except (ValueError, KeyError, TypeError):
            raise TrainError(
                f'{dataset.source}: line {number} cannot be read, expected {{"{key}": …, "caption": …}}'
            ) from None
        controls = numbered_in_line("control_path", entry, folder, f"{dataset.source}: line {number}")
        if len(controls) > 1 and dataset.is_video:
            raise TrainError(f"{dataset.source}: line {number} has {len(controls)} control videos, expected one")
        yield Media(os.path.normpath(path), caption.strip(), controls, tuple(layers))


def _text(path: str) -> str:
    try:
        return Path(path).read_text("utf-8-sig")  # Windows' editors begin a text with a mark
    except (OSError, UnicodeDecodeError) as error:
        raise TrainError(f"{path}: cannot be read as text: {error}") from None
