"""Images and videos as ComfyUI's VAEs take them: (frames, height, width, 3), 0 to 1."""

from __future__ import annotations

from collections.abc import Iterator

import av
import numpy
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from ....lyco_core.errors import TrainError
from ....lyco_core.train.dataset import Dataset, fit


def read_image(path: str, dataset: Dataset) -> Tensor:
    """An image at the size of its bucket."""
    try:
        with Image.open(path) as image:
            return _fitted([ImageOps.exif_transpose(image).convert("RGB")], dataset)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise TrainError(f"{path}: is no image that can be read: {error}") from None


def count_frames(path: str, keep: float) -> int:
    """How many frames of a video there are when only the part `keep` of them is taken."""
    try:
        with av.open(path) as container:
            count = sum(packet.size > 0 for packet in container.demux(video=0))
    except (OSError, IndexError, av.FFmpegError) as error:
        raise TrainError(f"{path}: is no video that can be read: {error}") from None
    return int(count * keep)


def read_frames(path: str, dataset: Dataset, window: tuple[int, int], keep: float) -> Tensor:
    """A piece of a video, (first frame, number of frames), at the size of its bucket."""
    first, count = window
    wanted = {int((first + i) / keep) for i in range(count)}
    try:
        frames = [Image.fromarray(frame) for frame in _decoded(path, wanted)]
    except (OSError, IndexError, av.FFmpegError) as error:
        raise TrainError(f"{path}: cannot be decoded: {error}") from None
    if len(frames) != count:
        raise TrainError(f"{path}: has only {len(frames)} of the {count} frames from {first}; is it damaged?")
    return _fitted(frames, dataset)


def _decoded(path: str, wanted: set[int]) -> Iterator[numpy.ndarray]:
    with av.open(path) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number in wanted:
                yield frame.to_ndarray(format="rgb24")
            if number >= max(wanted):
                return


def _fitted(images: list[Image.Image], dataset: Dataset) -> Tensor:
    made = fit(dataset, *images[0].size)
    arrays = [numpy.asarray(i.resize(made.scaled, Image.Resampling.LANCZOS).crop(made.box)) for i in images]
    return torch.from_numpy(numpy.stack(arrays)).float() / 255
