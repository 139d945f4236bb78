"""The size that an image is scaled and cropped to: Musubi Tuner's buckets."""

from __future__ import annotations

import dataclasses
import math

from .config import Dataset

__all__ = ["STEP", "Fit", "bucket_sizes", "fit", "fit_control"]

STEP = 16
"""Sizes are multiples of so many pixels."""


@dataclasses.dataclass(frozen=True)
class Fit:
    """How an image comes to the size of its bucket, as (width, height): scaled until it covers it, then cropped."""

    scaled: tuple[int, int]
    size: tuple[int, int]

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, upper, right and lower edge of the crop at the centre."""
        left, upper = ((a - b) // 2 for a, b in zip(self.scaled, self.size, strict=True))
        return left, upper, left + self.size[0], upper + self.size[1]


def fit(dataset: Dataset, width: int, height: int) -> Fit:
    """How an image, or a frame of a video, of this size comes to that of its bucket."""
    return covering(width, height, _bucket(dataset, width, height))


def fit_control(dataset: Dataset, width: int, height: int, item: tuple[int, int]) -> Fit:
    """How a control image of this size comes to that which its dataset asks for.

    Args:
        item: width and height of the image that it belongs to.
    """
    limit = dataset.control_resolution
    if dataset.no_resize_control and not (limit and width * height > limit[0] * limit[1]):
        size = _down(width), _down(height)
    elif limit:
        size = _of_shape(limit[0] * limit[1], width / height)
    else:
        size = _bucket(dataset, *item)
    return covering(width, height, size)


def covering(width: int, height: int, size: tuple[int, int]) -> Fit:
    """How an image of this size comes to another."""
    scale = max(size[0] / width, size[1] / height)
    return Fit((max(size[0], int(width * scale + 0.5)), max(size[1], int(height * scale + 0.5))), size)


def _bucket(dataset: Dataset, width: int, height: int) -> tuple[int, int]:
    area = dataset.resolution[0] * dataset.resolution[1]
    if not dataset.bucketed:
        return _down(dataset.resolution[0]), _down(dataset.resolution[1])
    if dataset.stays_small and width * height <= area:
        return _down(width), _down(height)
    return min(bucket_sizes(area), key=lambda size: abs(size[0] / size[1] - width / height))


def bucket_sizes(area: int) -> list[tuple[int, int]]:
    """All sizes of about this many pixels, from half to twice as wide as high and the other way round."""
    side = int(math.sqrt(area))
    sizes: set[tuple[int, int]] = set()
    for width in range(_down(side // 2), side + STEP, STEP):
        height = _down(area // width)
        sizes |= {(width, height), (height, width)}
    return sorted(sizes)


def _of_shape(area: int, shape: float) -> tuple[int, int]:
    """The size of at most about this many pixels whose width to height comes next to `shape`."""
    near = int(math.sqrt(area * shape)) // STEP * STEP
    widths = [width for width in range(near - 2 * STEP, near + 3 * STEP, STEP) if width > 0]
    return min(((width, _down(area // width)) for width in widths), key=lambda size: abs(size[0] / size[1] - shape))


def _down(length: int) -> int:
    return max(STEP, length // STEP * STEP)
