"""What a sample becomes: a picture, a video or the layers of a picture. The latent's shape, what is decoded, its files.

`sound.py` has what is heard.
"""

from __future__ import annotations

import dataclasses
import io
import os
from collections.abc import Mapping
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor

from ....lyco_core.errors import TrainError, about_file
from ....lyco_core.io.output import make_folder_of, new_files
from ....lyco_core.train.sample_prompt import SamplePrompt
from ..protocols import VAE, ModelPatcher

RATE = 16
"""Frames a second of a video, of a family of which none is known."""


class Output(Protocol):
    """A sample that is decoded."""

    @property
    def frames(self) -> Tensor | None:
        """See `lyco_core.train.samples.Sample`."""
        ...

    def write(self, path: str) -> tuple[str, ...]:
        """Write its files, whose paths are `path` and an ending, and return them. Raises `FileError`."""
        ...


class Form(Protocol):
    """What kind of sample a model makes."""

    def shape(self, patcher: ModelPatcher, prompt: SamplePrompt, vae: VAE) -> tuple[int, ...]:
        """The shape of a prompt's latent. Raises `TrainError` for what the model does not make."""
        ...

    def decoded(self, vae: VAE, latent: Tensor) -> Output:
        """What the VAE makes of a latent."""
        ...


@dataclasses.dataclass(frozen=True)
class Whole:
    """Pictures, or videos of so many frames a second."""

    rate: float = RATE

    def shape(self, patcher: ModelPatcher, prompt: SamplePrompt, vae: VAE) -> tuple[int, ...]:
        """See `Form`."""
        frames, *size = extent_of(prompt, vae)
        form = patcher.model.latent_format
        if form.latent_dimensions == 2:
            if prompt.frame_count > 1:
                raise TrainError(f"the model makes no videos, and frame_count is {prompt.frame_count}; set it to 1")
            return (1, form.latent_channels, *size)
        return (1, form.latent_channels, frames, *size)

    def decoded(self, vae: VAE, latent: Tensor) -> Film:
        """See `Form`."""
        return Film(_pixels(vae, latent), self.rate)


@dataclasses.dataclass(frozen=True)
class Apart:
    """The layers of a picture, each of which the VAE makes for itself."""

    whole: bool = True
    """Whether the whole picture comes before its layers."""

    def shape(self, patcher: ModelPatcher, prompt: SamplePrompt, vae: VAE) -> tuple[int, ...]:
        """See `Form`; frame_count says how many layers there are, as in Musubi."""
        _, *size = extent_of(prompt, vae)
        return (1, patcher.model.latent_format.latent_channels, prompt.frame_count + self.whole, *size)

    def decoded(self, vae: VAE, latent: Tensor) -> Layers:
        """See `Form`."""
        return Layers(torch.cat([_pixels(vae, one) for one in latent.split(1, dim=2)]), int(not self.whole))


def extent_of(prompt: SamplePrompt, vae: VAE) -> tuple[int, int, int]:
    """Frames, height and width of a prompt's latent; sizes that the VAE cannot make are rounded down, as in Musubi.

    Raises `TrainError` if nothing is left.
    """
    fewer = vae.spacial_compression_decode()
    height, width = prompt.height // fewer, prompt.width // fewer
    if 0 in (height, width):
        raise TrainError(f"{prompt.width} x {prompt.height} is too small for the VAE, whose least is {fewer}")
    return (prompt.frame_count - 1) // (vae.temporal_compression_decode() or 1) + 1, height, width


def _pixels(vae: VAE, latent: Tensor) -> Tensor:
    pixels = vae.decode(latent).float().cpu()
    return pixels.reshape(-1, *pixels.shape[-3:]).clamp(0, 1).mul(255).round().to(torch.uint8)


@dataclasses.dataclass(frozen=True)
class Film:
    """Frames of a video, or one picture."""

    frames: Tensor
    rate: float

    def write(self, path: str) -> tuple[str, ...]:
        """A PNG, or an animated WebP where there are several frames."""
        images = [Image.fromarray(frame) for frame in self.frames.numpy()]
        if len(images) == 1:
            return (_saved(images[0], path + ".png"),)
        more = {"append_images": images[1:], "duration": round(1000 / self.rate)}
        return (_saved(images[0], path + ".webp", {"save_all": True, "loop": 0, "quality": 90, **more}),)


@dataclasses.dataclass(frozen=True)
class Layers:
    """Layers of a picture, with their transparency."""

    frames: Tensor
    first: int
    """The number of the first of them; the whole picture is 0."""

    def write(self, path: str) -> tuple[str, ...]:
        """A PNG each."""
        images = map(Image.fromarray, self.frames.numpy())
        return tuple(_saved(image, f"{path}_{number}.png") for number, image in enumerate(images, self.first))


def _saved(image: Image.Image, path: str, more: Mapping[str, object] | None = None) -> str:
    data = io.BytesIO()
    image.save(data, format=os.path.splitext(path)[1][1:].upper(), **(more or {}))
    return written(path, data.getbuffer())


def written(path: str, data: memoryview | bytes) -> str:
    """`path`, at which a file of `data` is once it is whole. Raises `FileError`."""
    with about_file(path):
        make_folder_of(path)
        with new_files([path], overwrite=True) as (file,):
            file.write(data, 0)
    return path
