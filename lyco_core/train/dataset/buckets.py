"""The size that an image is scaled and cropped to: Musubi Tuner's buckets."""

from __future__ import annotations

import dataclasses
import math

from .config import Dataset

__all__ = ["Fit", "bucket_sizes", "fit", "fit_control"]


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
    limit, step = dataset.control_resolution, dataset.steps[0]
    if dataset.no_resize_control and not (limit and width * height > limit[0] * limit[1]):
        size = _down(width, step), _down(height, step)
    elif limit:
        size = _of_shape(limit[0] * limit[1], width / height, step)
    else:
        size = _bucket(dataset, *item)
    return covering(width, height, size)


def covering(width: int, height: int, size: tuple[int, int]) -> Fit:
    """How an image of this size comes to another."""
    scale = max(size[0] / width, size[1] / height)
    return Fit((max(size[0], int(width * scale + 0.5)), max(size[1], int(height * scale + 0.5))), size)


def _bucket(dataset: Dataset, width: int, height: int) -> tuple[int, int]:
    area, step = dataset.resolution[0] * dataset.resolution[1], dataset.steps[0]
    if not dataset.bucketed:
        return _down(dataset.resolution[0], step), _down(dataset.resolution[1], step)
    if dataset.stays_small and width * height <= area:
        return _down(width, step), _down(height, step)
    return min(bucket_sizes(area, step), key=lambda size: abs(size[0] / size[1] - width / height))


def bucket_sizes(area: int, step: int) -> list[tuple[int, int]]:
    """All sizes of about this many pixels, from half to twice as wide as high and the other way round."""
    side = int(math.sqrt(area))
    sizes: set[tuple[int, int]] = set()
    for width in range(_down(side // 2, step), side + step, step):
        height = _down(area // width, step)
        sizes |= {(width, height), (height, width)}
    return sorted(sizes)


def _of_shape(area: int, shape: float, step: int) -> tuple[int, int]:
    """The size of at most about this many pixels whose width to height comes next to `shape`."""
    near = int(math.sqrt(area * shape)) // step * step
    widths = [width for width in range(near - 2 * step, near + 3 * step, step) if width > 0]
    return min(
        ((width, _down(area // width, step)) for width in widths), key=lambda size: abs(size[0] / size[1] - shape)
    )


def _down(length: int, step: int) -> int:
    return max(step, length // step * step)
