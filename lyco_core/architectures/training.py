"""What a family that is trained is to the trainer whose files are written, and to ComfyUI, whose model is trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

__all__ = ["ImageInput", "MusubiNames", "TrainedFamily", "trained_here"]


@dataclasses.dataclass(frozen=True)
class MusubiNames:
    """What Musubi Tuner calls a family in the metadata of its files; sd-scripts, if that trains it and Musubi does not.

    An entry that is empty is not written: a family that neither trains has only an id.
    """

    base_model: str
    """ss_base_model_version."""
    architecture: str = ""
    """modelspec.architecture, without `/lora`."""
    implementation: str = ""
    """modelspec.implementation."""
    lora_module: str = "lora"
    """The module of `networks` that trains a LoRA of it, in ss_network_module."""
    resolution: tuple[int, int] = (1280, 720)
    """modelspec.resolution: width and height."""
    by_depth: Mapping[tuple[str, int], tuple[str, str]] = dataclasses.field(default_factory=dict[Any, Any])
    """(Start of a block's name, how many a model has) -> `base_model` and `architecture` of that size."""

    def of(self, blocks: Mapping[str, int]) -> MusubiNames:
        """The names of a model that has so many of each of its blocks."""
        for (block, count), (base_model, architecture) in self.by_depth.items():
            if blocks.get(block) == count:
                return dataclasses.replace(self, base_model=base_model, architecture=architecture)
        return self


@dataclasses.dataclass(frozen=True)
class ImageInput:
    """How to see of a family's model whether it reads an image beside the noise. Names are ComfyUI's."""

    reads: str
    """The module that reads a patch: of more numbers than `writes` writes, if there is an image among them."""
    writes: str
    """The module that writes a patch."""
    by_itself: Mapping[str, str | None] = dataclasses.field(default_factory=dict[Any, Any])
    """A module that reads an image by itself -> what ComfyUI's conditioning calls that image. None: the further
    channels that the model reads have values of their own."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainedFamily:
    """All that training needs to know of a family beside its table. Every field is required: none has a value that
    would be right for a family that nobody looked up.
    """

    excludes: tuple[str, ...]
    """Regular expressions; a module whose whole dotted name one matches is left out: Musubi's own, or what
    modulates."""
    outside: tuple[str, ...]
    """Regular expressions of modules outside of the family's blocks that are trained as well."""
    by_musubi: bool
    """Whether Musubi Tuner trains LoHa and LoKr of it: else only the names of its files, if it trains LoRA, are its."""
    sampling: str
    """`timestep_sampling` of the command in Musubi's page on the family; else what comes near ComfyUI's sampling."""
    shift: float
    """`discrete_flow_shift` of that command; else the shift with which ComfyUI samples."""
    frames_a_second: int | None
    """At which rate Musubi trains videos; None: all frames are taken."""
    steps: tuple[int, int]
    """The sides of pictures are multiples of so many pixels, and the frames of a video one more than a multiple of so
    many: of what its VAE makes one latent of, and the model one token."""
    names: MusubiNames
    image_input: ImageInput | None
    """None: no model of the family reads an image beside the noise, or zeros in its channels are text to video."""
    clip_type: str | None
    """The type in ComfyUI's CLIP loader; None: ComfyUI has no model of the family by itself. Empty: the model reads
    words and pixels itself, and neither its text encoder nor its VAE has a file."""
    learns_data: bool
    """Whether the trainer's loss is of x_0, however the model says it."""
    comfyui_blocks: tuple[str, ...]
    """What ComfyUI's model calls its lists of blocks, in the order in which they run, `*` for whatever a list holds;
    one that a model lacks is passed over. Each block is computed again in the backward pass."""
    comfyui_norms: tuple[str, ...]
    """Norms of ComfyUI's blocks whose input the block changes in place later on, which autograd may not notice."""


def trained_here(
    names: MusubiNames,
    blocks: str,
    clip_type: str | None,
    *,
    shift: float,
    excludes: tuple[str, ...] = (),
    outside: tuple[str, ...] = (),
    norms: tuple[str, ...] = (),
    image_input: ImageInput | None = None,
    sampling: str = "shift",
    frames_a_second: int | None = None,
    steps: tuple[int, int] = (16, 4),
    learns_data: bool = False,
) -> TrainedFamily:
    """A family of which Musubi Tuner trains no LoHa and LoKr.

    Args:
        blocks: `comfyui_blocks`, separated by spaces.
        shift: of ComfyUI's own sampling, unless Musubi's page on the family has another.
    """
    return TrainedFamily(
        excludes=excludes,
        outside=outside,
        by_musubi=False,
        sampling=sampling,
        shift=shift,
        frames_a_second=frames_a_second,
        steps=steps,
        names=names,
        image_input=image_input,
        clip_type=clip_type,
        learns_data=learns_data,
        comfyui_blocks=tuple(blocks.split()),
        comfyui_norms=norms,
    )
