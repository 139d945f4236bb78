"""Images and videos as ComfyUI's VAEs take them: (frames, height, width, 3), 0 to 1."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import av
import numpy
import torch
from av.error import FFmpegError
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from ....lyco_core.errors import TrainError
from ....lyco_core.train.dataset import VIDEOS, Dataset, Fit, covering, fit, fit_control, frames_of

TURNED = (5, 6, 7, 8)
"""Orientations of EXIF that lie on their side."""


def read_image(path: str, dataset: Dataset) -> Tensor:
    """An image at the size of its bucket."""
    return _fitted([opened_image(path)], partial(fit, dataset))


def read_control(path: str, item: str, dataset: Dataset) -> Tensor:
    """A control image at the size that its dataset asks for; `item` is the path of the image that it belongs to."""
    return _fitted([opened_image(path)], _over(item, dataset))


def read_reference(path: str, dataset: Dataset, mode: str = "RGB") -> Tensor:
    """A control image of no item, at the size that a dataset asks for; `mode` as `opened_image` has it."""
    return _fitted(
        [opened_image(path, mode)], lambda width, height: fit_control(dataset, width, height, dataset.resolution)
    )


def read_covering(path: str, size: tuple[int, int]) -> Tensor:
    """An image that covers a width and a height, cut at its middle."""
    return _fitted([opened_image(path)], lambda width, height: covering(width, height, size))


def read_covering_frames(path: str, size: tuple[int, int], count: int) -> Tensor:
    """The first frames of a video, at a size as above; where it has fewer, the last stays. An image is one frame."""
    if os.path.isdir(path) or path.lower().endswith(VIDEOS):
        wanted = range(min(count, count_frames(path)))
        frames = _frames(path, wanted, lambda width, height: covering(width, height, size))
    else:
        frames = read_covering(path, size)
    return torch.cat([frames, frames[-1:].expand(count - len(frames), -1, -1, -1)])


def read_control_frames(path: str, item: str, dataset: Dataset, wanted: Sequence[int]) -> Tensor:
    """Frames of a control video, some of them perhaps again and again, at the size of its clip, in the video `item`."""
    different = sorted(set(wanted))
    return _frames(path, different, _over(item, dataset))[[different.index(number) for number in wanted]]


def _over(item: str, dataset: Dataset) -> Callable[[int, int], Fit]:
    size = size_of(item)
    return lambda width, height: fit_control(dataset, width, height, size)


def read_layers(paths: Sequence[str], dataset: Dataset) -> Tensor:
    """An image and its layers with their transparency, (1 + layers, height, width, 4), at the size of its bucket."""
    return _fitted([opened_image(path, "RGBA") for path in paths], _over(paths[0], dataset))


def opened_image(path: str, mode: str = "RGB") -> Image.Image:
    """An image, turned as its file says; `mode` RGBA: with its transparency."""
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert(mode)
    except Exception as error:  # each of Pillow's decoders has its own
        raise TrainError(f"{path}: is no image that can be read: {error}") from None


def size_of(path: str) -> tuple[int, int]:
    """Width and height of an image as it is shown, or of a video's frames, without decoding it. Raises `TrainError`."""
    if os.path.isdir(path):
        return size_of(frames_of(path)[0])
    if path.lower().endswith(VIDEOS):
        return _size_of_video(path)
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) in TURNED
            return (image.height, image.width) if turned else image.size
    except Exception as error:
        raise TrainError(f"{path}: is no image that can be read: {error}") from None


def _size_of_video(path: str) -> tuple[int, int]:
    try:
        with av.open(path) as container:
            stream = container.streams.video[0]
            return stream.width, stream.height
    except (OSError, IndexError, FFmpegError) as error:
        raise TrainError(f"{path}: is no video that can be read: {error}") from None


def count_frames(path: str) -> int:
    """How many frames a video shows, without decoding them."""
    if os.path.isdir(path):
        return len(frames_of(path))
    try:
        with av.open(path) as container:
            # A video that was cut by copying keeps the frames before its first, marked to be thrown away.
            count = sum(packet.size > 0 and not packet.is_discard for packet in container.demux(video=0))
    except (OSError, IndexError, FFmpegError) as error:
        raise TrainError(f"{path}: is no video that can be read: {error}") from None
    if not count:
        raise TrainError(f"{path}: has no frames")
    return count


def read_frames(path: str, dataset: Dataset, wanted: Sequence[int]) -> Tensor:
    """Some frames of a video, by their numbers, at the size of its bucket."""
    return _frames(path, wanted, partial(fit, dataset))


def _frames(path: str, wanted: Sequence[int], size: Callable[[int, int], Fit]) -> Tensor:
    try:
        pixels = _fitted(_decoded(path, set(wanted)), size)
    except (OSError, IndexError, ValueError, FFmpegError) as error:
        raise TrainError(f"{path}: cannot be decoded: {error}") from None
    if len(pixels) != len(wanted):
        raise TrainError(f"{path}: {len(pixels)} of its frames {wanted[0]} to {wanted[-1]} are there; is it damaged?")
    return pixels


def _decoded(path: str, wanted: set[int]) -> Iterator[Image.Image]:
    if os.path.isdir(path):
        yield from (opened_image(frame) for i, frame in enumerate(frames_of(path)) if i in wanted)
        return
    last = max(wanted)
    with av.open(path) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number in wanted:
                yield frame.to_image()
            if number == last:
                return


def _fitted(images: Iterable[Image.Image], size: Callable[[int, int], Fit]) -> Tensor:
    """Images at the size that `size` gives, scaled one by one: the frames of a video are not held in their own size."""
    arrays: list[numpy.ndarray] = []
    for image in images:
        made = size(*image.size)
        arrays.append(numpy.asarray(image.resize(made.scaled, Image.Resampling.LANCZOS).crop(made.box)))
    return torch.from_numpy(numpy.stack(arrays)).float().div_(255)
