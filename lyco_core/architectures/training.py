"""What a family that is trained is to Musubi Tuner, whose files are written, and to ComfyUI, whose model is trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

__all__ = ["ImageInput", "MusubiNames", "TrainedFamily"]


@dataclasses.dataclass(frozen=True)
class MusubiNames:
    """What Musubi Tuner calls a family in the metadata of its files."""

    base_model: str
    """ss_base_model_version."""
    architecture: str
    """modelspec.architecture, without `/lora`."""
    implementation: str
    """modelspec.implementation."""
    lora_module: str
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
    """Regular expressions; Musubi leaves out a module of the blocks whose whole dotted name one matches."""
    sampling: str
    """`timestep_sampling` of the command in Musubi's page on the family."""
    shift: float
    """`discrete_flow_shift` of that command."""
    frames_a_second: int | None
    """At which rate Musubi trains videos; None: all frames are taken."""
    names: MusubiNames
    image_input: ImageInput | None
    """None: no model of the family reads an image beside the noise, or zeros in its channels are text to video."""
    clip_type: str | None
    """The type in ComfyUI's CLIP loader; None: ComfyUI has no model of the family by itself."""
    comfyui_blocks: tuple[str, ...]
    """What ComfyUI's model calls its lists of blocks, in the order in which they run; one that a model lacks is passed
    over. Each block is computed again in the backward pass."""
    comfyui_norms: tuple[str, ...]
    """Norms of ComfyUI's blocks whose input the block changes in place later on, which autograd may not notice."""
