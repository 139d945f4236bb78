"""What *Training Dataset* does: from a folder and a few options to items."""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Mapping
from typing import Any

from ....lyco_core.errors import TrainError
from ....lyco_core.text import counted
from ....lyco_core.train.dataset import Dataset, kinds_in
from ..protocols import CLIP, VAE
from .encoding import encode_datasets
from .folders import allowed_path, folder_path
from .loaded_encoders import LoadedEncoders
from .run import Data

BOTH, IMAGES, VIDEOS = MEDIA = ("all", "images", "videos")
"""What of a folder is taken."""

_AS_THEY_ARE = (
    "caption_extension",
    "num_repeats",
    "batch_size",
    "enable_bucket",
    "bucket_no_upscale",
)
_OF_VIDEOS = ("frame_extraction", "frame_stride", "frame_sample", "max_frames", "source_fps")


def datasets_of(inputs: Mapping[str, Any]) -> list[Dataset]:
    """The datasets that a node's inputs describe: that of a folder's images, that of its videos, or both.

    Raises `LycoError` for a folder that has none of them, and for values that are not allowed.
    """
    folder = folder_path(str(inputs["folder"]), str(inputs["path"]).strip())
    shared: dict[str, Any] = {name: inputs[name] for name in _AS_THEY_ARE}
    shared["resolution"] = (inputs["width"], inputs["height"])
    if cache := str(inputs["cache_directory"]).strip():
        shared["cache_directory"] = allowed_path("cache_directory", cache)
    frames: dict[str, Any] = {name: inputs[name] for name in _OF_VIDEOS} | {
        "target_frames": _frames(inputs["target_frames"])
    }
    media = inputs["media"]
    images, videos = (
        kinds_in(folder, inputs["caption_extension"]) if media == BOTH else (media == IMAGES, media == VIDEOS)
    )
    made: list[Dataset] = []
    if images or not videos:
        made.append(Dataset(image_directory=folder, **shared))
    if videos:
        made.append(Dataset(video_directory=folder, **shared, **frames))
    return made


def _frames(text: str) -> tuple[int, ...]:
    """Numbers of frames, between commas or spaces."""
    parts = re.split(r"[,\s]+", text.strip(" ,[]"))
    if not all(part.isdecimal() for part in parts):
        raise TrainError(f"target_frames is '{text}', expected whole numbers such as 1, 25, 45")
    return tuple(int(part) for part in parts)


def encoded(
    inputs: Mapping[str, Any], vae: VAE, clip: CLIP, others: Data | None, found: Mapping[str, Any]
) -> tuple[Data, str]:
    """The items of a folder, encoded or from the cache, after those of another node; and what they are.

    Args:
        found: what `survey.survey` says of the same inputs.

    Raises:
        LycoError: see `datasets_of` and `encoding.encode_datasets`.
    """
    datasets = datasets_of(inputs)
    encoders = LoadedEncoders(vae, clip, inputs["target_fps"] or None)
    made = encode_datasets(datasets, encoders)
    data = Data(made.items, made.empty, (), [dataset.told() for dataset in datasets])
    lines = [
        f"{os.path.basename(datasets[0].source)}: {counted(found['images'], 'image')}, "
        f"{counted(found['videos'], 'video')}, {counted(found['items'], 'item')}, each "
        f"{counted(found['repeats'], 'time')} in an epoch; {counted(encoders.made, 'was', 'were')} encoded, "
        "the rest was in the cache",
        *(
            f"{width} x {height}{f' x {frames}' if frames else ''}: {count}"
            for width, height, frames, count in found["buckets"]
        ),
    ]
    if others:
        lines.append(f"with the {counted(len(others.items), 'item')} of dataset: {len(others.items) + len(data.items)}")
    return joined([others, data] if others else [data]), "\n".join(lines)


def joined(data: list[Data]) -> Data:
    """The items of all; the empty caption is the first one's."""
    items = [item for one in data for item in one.items]
    return dataclasses.replace(data[0], items=items, datasets=[told for one in data for told in one.datasets])


def listing(inputs: Mapping[str, Any]) -> object:
    """What changes when a folder does: names, times and sizes of all that is in it, and of what is in its folders."""
    folder, path = inputs.get("folder"), inputs.get("path", "")
    if folder is None or path is None:
        return math.nan  # linked, and not known yet: equal to nothing, so that the folder is looked at again
    folder = folder_path(folder, path.strip())
    cache = os.path.realpath(str(inputs.get("cache_directory") or "").strip() or os.path.join(folder, ".lyco_cache"))
    found: list[tuple[str, int, int]] = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(n for n in folders if not n.startswith(".")) if place == folder else []
        kept = os.path.realpath(place) == cache
        for name in sorted(names):
            if kept and name.endswith(".safetensors"):  # what a run put there
                continue
            status = os.lstat(os.path.join(place, name))
            found.append((os.path.join(place, name), status.st_mtime_ns, status.st_size))
    return found
