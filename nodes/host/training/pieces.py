"""What of datasets is encoded, and where in the cache each part is kept."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from ....lyco_core.errors import TrainError
from ....lyco_core.train.dataset import STEPS, Dataset, Media, at_rate, media_of, windows
from .cache import Entry, identity
from .encoders import Encoding
from .first_frames import Clip
from .media import count_frames, read_control, read_frames, read_image, read_layers

log = logging.getLogger("lyco")


@dataclasses.dataclass(frozen=True)
class Text:
    """A caption, what the text encoder sees with it, and where its conditioning is kept."""

    caption: str
    entry: Entry
    pictures: Sequence[Pictured] = ()
    """Control images."""
    frame: Entry | None = None
    """Where it is kept what was seen of a first frame."""


class Pictured(Protocol):
    """Something to encode with the VAE, and where its latent is kept."""

    @property
    def path(self) -> str: ...
    @property
    def entry(self) -> Entry: ...
    @property
    def pixels(self) -> Tensor: ...


@dataclasses.dataclass(frozen=True)
class Control:
    """A control image, and where its latent is kept."""

    path: str
    item: str
    """The path of the image that it belongs to."""
    dataset: Dataset
    entry: Entry

    @property
    def pixels(self) -> Tensor:
        """The image at its size, (1, height, width, 3)."""
        return read_control(self.path, self.item, self.dataset)


@dataclasses.dataclass(frozen=True)
class Piece:
    """An image, or a piece of a video, and where its latent is kept."""

    dataset: Dataset
    media: Media
    frames: tuple[int, ...] | None
    """The numbers of a video's frames; None for an image."""
    entry: Entry
    first: Clip | None
    """What the model reads beside the noise, if it does."""
    controls: Sequence[Control]
    text: Text
    empty: Text
    """What stands in for `text` where captions are dropped."""

    @property
    def path(self) -> str:
        """Of its file."""
        return self.media.path

    @property
    def pixels(self) -> Tensor:
        """The image or the frames, (frames, height, width, 3); an image and its layers have transparency, 4."""
        if self.media.layers:
            return read_layers((self.media.path, *self.media.layers), self.dataset)
        if self.frames is None:
            return read_image(self.media.path, self.dataset)
        return read_frames(self.media.path, self.dataset, self.frames)


def pieces_of(dataset: Dataset, encoders: Encoding) -> list[Piece]:
    """The images of a dataset, or the pieces of its videos. Raises `TrainError` if there are none."""
    dataset, found = dataclasses.replace(dataset, steps=encoders.steps), list[Piece]()
    for media in media_of(dataset):
        pieces = [None]
        if dataset.is_video:
            pieces = pieces_of_video(dataset, count_frames(media.path), encoders.frames_a_second)
        if not pieces:
            log.warning("%s: is shorter than every target_frames, so it is left out", media.path)
        found += (_piece(dataset, media, frames, encoders) for frames in pieces)
    if not found:
        raise too_short(dataset)
    return found


def too_short(dataset: Dataset) -> TrainError:
    """What is wrong with a dataset whose videos have no piece."""
    return TrainError(f"{dataset.source}: every video is shorter than target_frames {list(dataset.target_frames)}")


def _piece(dataset: Dataset, media: Media, frames: tuple[int, ...] | None, encoders: Encoding) -> Piece:
    how, kind = encoders.references, encoders.first_frame
    latent, first = _encoded_as(dataset, media, frames, encoders)
    controls = [
        Control(path, media.path, dataset, _control_entry(dataset, media, number, encoders))
        for number, path in enumerate(media.controls if how else ())
    ]
    frame = first.entry if first and kind and kind.asks else None
    text, empty = (text_of(dataset.cache, one, encoders, controls, frame) for one in (media.caption, ""))
    return Piece(dataset, media, frames, latent, first, controls, text, empty)


def pieces_of_video(dataset: Dataset, count: int, target: float | None) -> list[tuple[int, ...]]:
    """The numbers of the frames of every piece of a video of `count` frames; `target`: the model's frames a second."""
    frames = at_rate(count, _rate(dataset, target))
    return [tuple(frames[start : start + count]) for start, count in windows(dataset, len(frames))]


def _rate(dataset: Dataset, target: float | None) -> float:
    return min(1.0, target / dataset.source_fps) if target and dataset.source_fps else 1.0


def _encoded_as(
    dataset: Dataset, media: Media, frames: tuple[int, ...] | None, encoders: Encoding
) -> tuple[Entry, Clip | None]:
    """Where a piece's latent is kept, and what is read beside the noise."""
    shape = [dataset.resolution, dataset.bucketed, dataset.stays_small, frames, *_other_steps(dataset)]
    name = os.path.splitext(os.path.basename(media.path))[0]
    name += f"_{frames[0]:05d}-{len(frames):03d}" if frames else ""
    layers = [identity(path) for path in media.layers]
    made_from = (identity(media.path), shape, encoders.vae_identity(), *([layers] if layers else []))
    latent = Entry(dataset.cache, name, "latent", *made_from)
    if (kind := encoders.first_frame) is None:
        return latent, None
    more = what_looks(encoders)
    if not kind.control:
        return latent, Clip(
            Entry(dataset.cache, f"{name}_first", kind.node, *made_from, more), media.path, dataset, frames
        )
    control, shown = media.controls[0], None
    if frames:
        last = at_rate(count_frames(control), _rate(dataset, encoders.frames_a_second))[-1]
        shown = tuple(min(number, last) for number in frames)  # the last stays where the control is shorter
    entry = Entry(dataset.cache, f"{name}_control", kind.node, *made_from, more, identity(control), shown)
    return latent, Clip(entry, media.path, dataset, frames, control, shown)


def _other_steps(dataset: Dataset) -> list[int]:
    return [dataset.steps[0]] if dataset.steps != STEPS else []


def _control_entry(dataset: Dataset, media: Media, number: int, encoders: Encoding) -> Entry:
    path = media.controls[number]
    shape = [dataset.no_resize_control, dataset.control_resolution]
    shape += [dataset.resolution, dataset.bucketed, dataset.stays_small, identity(media.path), *_other_steps(dataset)]
    name = f"{os.path.splitext(os.path.basename(media.path))[0]}_control_{number}"
    return Entry(dataset.cache, name, "control", identity(path), shape, encoders.vae_identity())


def what_looks(encoders: Encoding) -> list[object]:
    """What changes when what is seen of a first frame does."""
    kind = encoders.first_frame
    return [encoders.vision_identity(), kind.crop] if kind and kind.looks else []


def text_of(cache: str, caption: str, encoders: Encoding, controls: Sequence[Pictured], frame: Entry | None) -> Text:
    """A caption with what the text encoder sees with it.

    Args:
        controls: the control images, whether or not it sees them.
        frame: where it is kept what is seen of a first frame, if the text encoder is to see that.
    """
    shown = controls if encoders.references and encoders.references.node else ()
    seen = [one.entry for one in shown] or ([frame] if frame else [])
    return Text(caption, caption_entry(cache, caption, encoders, seen), shown, frame)


def caption_entry(cache: str, caption: str, encoders: Encoding, seen: Sequence[Entry] = ()) -> Entry:
    """Where the conditioning of a caption is kept; `seen`: of what the text encoder sees with it."""
    made_from = encoders.text_identity()
    if seen:
        node = encoders.references.node if encoders.references else encoders.first_frame and encoders.first_frame.asks
        made_from = [*made_from, node, [os.path.basename(one.path) for one in seen]]
    return Entry(cache, "caption", "caption", caption, *made_from)
