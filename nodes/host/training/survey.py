"""What is in a folder before anything of it is encoded: how many items of which size, in which buckets."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ....lyco_core.train.dataset import STEPS, Dataset, Media, fit, media_of
from .folder_dataset import datasets_of
from .media import count_frames, size_of
from .pieces import pieces_of_video, too_short

KEPT = 20_000
"""So many answers about files are kept, so that another resolution opens none of them again."""

BUCKETS = 24
"""So many buckets are told, those with the most items first."""

T = TypeVar("T")
_known: OrderedDict[tuple[object, ...], Any] = OrderedDict()


def survey(inputs: Mapping[str, Any], steps: tuple[int, int] = STEPS) -> dict[str, Any]:
    """What a node's inputs would make, in plain types, from the headers of the files.

    Args:
        steps: of the VAE, if it is known.

    Raises `LycoError`: what a run would refuse of the folder, its captions and its files.
    """
    buckets: Counter[tuple[int, int, int]] = Counter()
    found = {"images": 0, "videos": 0, "short": 0, "repeats": int(inputs["num_repeats"])}
    for dataset in (dataclasses.replace(dataset, steps=steps) for dataset in datasets_of(inputs)):
        media = media_of(dataset)
        found["videos" if dataset.is_video else "images"] += len(media)
        before = buckets.total()
        for one in media:
            pieces = _pieces(dataset, one, inputs["target_fps"] or None)
            found["short"] += not pieces
            size = fit(dataset, *_of_file(size_of, one.path)).size
            buckets.update((*size, frames) for frames in pieces)
        if buckets.total() == before:
            raise too_short(dataset)
    told = sorted(buckets.items(), key=lambda bucket: (-bucket[1], bucket[0]))
    return found | {
        "items": sum(buckets.values()),
        "buckets": [[*bucket, count] for bucket, count in told[:BUCKETS]],
        "bucket_count": len(told),
    }


def _pieces(dataset: Dataset, media: Media, rate: float | None) -> list[int]:
    """How many frames each piece of an image or a video has; 0 for an image."""
    if not dataset.is_video:
        return [0]
    frames = _of_file(count_frames, media.path)
    return [len(piece) for piece in pieces_of_video(dataset, frames, rate)]


def _of_file(asked: Callable[[str], T], path: str) -> T:
    if os.path.isdir(path):  # of frames, which may be written anew without a trace on it
        return asked(path)
    status = os.stat(path)
    key = (asked.__name__, path, status.st_ino, status.st_mtime_ns, status.st_size)
    if key not in _known:
        _known[key] = asked(path)
        while len(_known) > KEPT:
            _known.popitem(last=False)
    return _known[key]
