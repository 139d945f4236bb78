"""Which pieces of a video are learned: Musubi Tuner's ways."""

from __future__ import annotations

from itertools import accumulate, repeat

from .config import Dataset

__all__ = ["at_rate", "windows"]


def windows(dataset: Dataset, frames: int) -> list[tuple[int, int]]:
    """(first frame, number of frames) of every piece of a video; none if it is too short for all."""
    if dataset.frame_extraction == "full":
        return [(0, _whole(min(frames, dataset.max_frames), dataset.steps[1]))]
    found: list[tuple[int, int]] = []
    for count in sorted({_whole(count, dataset.steps[1]) for count in dataset.target_frames}):
        if frames >= count:
            found += dict.fromkeys((start, count) for start in _starts(dataset, frames, count))
    return found


def at_rate(frames: int, rate: float) -> list[int]:
    """The numbers of the frames that are kept of a video's `frames` at `rate` times its frame rate, at most 1.

    A frame is the first at or after its time; Musubi adds times up in floating point, and so does this.
    """
    times = [int(time) for time in accumulate(repeat(rate, frames - 1), initial=0.0)]
    return [i for i, time in enumerate(times) if i == 0 or time != times[i - 1]]


def _starts(dataset: Dataset, frames: int, count: int) -> list[int]:
    last = frames - count
    if dataset.frame_extraction == "chunk":
        return list(range(0, last + 1, count))
    if dataset.frame_extraction == "slide":
        return list(range(0, last + 1, dataset.frame_stride))
    if dataset.frame_extraction == "uniform" and dataset.frame_sample > last:  # every start, which Musubi has once
        return list(range(last + 1))
    if dataset.frame_extraction == "uniform" and dataset.frame_sample > 1:
        step = last / (dataset.frame_sample - 1)  # numpy.linspace's order of rounding
        return [*(int(i * step) for i in range(dataset.frame_sample - 1)), last]
    return [0]


def _whole(count: int, step: int) -> int:
    """The largest multiple of `step` plus 1 up to `count`: what video VAEs encode."""
    return (count - 1) // step * step + 1
