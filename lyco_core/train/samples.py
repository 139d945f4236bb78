"""Samples that are made while it trains: of what, and what came of it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..errors import TrainError
from ..io.toml import path_of
from ..model import Model
from .first_frames import FirstFrame
from .image_inputs import image_input
from .layers import LAYERED, is_layered
from .options import TrainOptions
from .prompts import read_prompts
from .references import References, references_of
from .sample_prompt import CONTROL_VIDEO, OF_PICTURES, OF_SOUND, SamplePrompt, about_prompt, located

__all__ = [
    "Sample",
    "makes_sound",
    "prompts_in",
    "prompts_of",
    "references_of_prompts",
    "require_fitting",
    "require_supplied",
]


@dataclasses.dataclass(frozen=True)
class Sample:
    """A picture, a video, the layers of a picture or sound, and what it was made of."""

    step: int
    """How many steps were done."""
    number: int
    """Of its prompt, from 0."""
    prompt: str
    seed: int
    paths: tuple[str, ...]
    """Of its file; of layers each has its own."""
    frames: Tensor | None
    """(n, height, width, 3), of layers 4, 0 to 255; None: it is sound."""

    @property
    def picture(self) -> Tensor | None:
        """(height, width, …): the frame in the middle, or all layers beside each other."""
        if self.frames is None:
            return None
        return torch.cat(list(self.frames), 1) if len(self.paths) > 1 else self.frames[len(self.frames) // 2]


def prompts_of(options: TrainOptions) -> tuple[SamplePrompt, ...]:
    """The prompts of a training's samples; none if it makes none. Raises `TrainError` for what cannot be sampled."""
    if not options.sample.sample_prompts:
        return ()
    if options.memory.shard_blocks:
        raise TrainError(
            "shard_blocks divides the model over processes, and no sample is made with such a one; set shard_blocks to "
            "false, or leave out sample_prompts"
        )
    return read_prompts(options.sample.sample_prompts)


def prompts_in(options: TrainOptions, folder: Path) -> tuple[SamplePrompt, ...]:
    """The same with the paths of pictures, which start in a folder. Raises `TrainError` for one that is not there."""

    def place(name: str, path: str) -> str:
        found = path_of(path, name, folder)
        if not os.path.isfile(found) and not (name == CONTROL_VIDEO and os.path.isdir(found)):
            raise TrainError(f"{name}: {found}: there is no such file")
        return found

    return located(prompts_of(options), place)


def require_supplied(options: TrainOptions, read: Collection[str]) -> None:
    """Raise `TrainError` for samples of a model that learns from something which no prompt can give it.

    Args:
        read: ComfyUI's names of what is in the items' conditioning beside their captions.
    """
    unknown = [name for name in read if name not in _SUPPLIED]
    if unknown and options.sample.sample_prompts:
        raise TrainError(
            f"sample_prompts: the items' conditioning holds {', '.join(unknown)}, which no prompt can give; leave "
            "sample_prompts out, or sample with the saved adapters in a workflow"
        )


_SUPPLIED = (
    "concat_latent_image",
    "concat_mask",
    "concat_mask_index",
    "clip_vision_output",
    "reference_latents",
    "reference_latents_method",
)
"""What first frames and control images become in a conditioning."""


def references_of_prompts(
    weights: Model, prompts: Sequence[SamplePrompt], version: str = "", *, first_removed: bool = False
) -> References | None:
    """How a model reads the control images of samples; None if no prompt has any.

    Args:
        version, first_removed: as `require_controls` and `require_layers` have them, which say what is raised too.
    """
    if is_layered(weights):
        return dataclasses.replace(LAYERED, whole=not first_removed)
    return references_of(weights, version) if any(prompt.control_image_path for prompt in prompts) else None


def makes_sound(weights: Model) -> bool:
    """Whether what a model makes is heard."""
    return weights.architecture is not None and weights.architecture.id in ("ace_step", "ace_step_1_5")


def require_fitting(
    weights: Model, prompts: Sequence[SamplePrompt], kind: FirstFrame | None, references: References | None
) -> None:
    """Raise `TrainError` unless each prompt says what the model reads, and nothing else.

    Args:
        kind: how it comes by frames beside the noise; None: it reads none.
        references: how it reads control images.
    """
    image, sound = image_input(weights), makes_sound(weights)
    if prompts and image and not kind:
        raise TrainError(
            f"sample_prompts: the model reads {image} beside the noise, which is no first frame and no prompt can "
            "give; leave sample_prompts out, or sample with the saved adapters in a workflow"
        )
    for number, prompt in enumerate(prompts, 1):
        with about_prompt(number):
            _require_none_of(prompt, sound=sound)
            _require_frames(prompt, kind)
            _require_control_video(prompt, kind)
            _require_controls(prompt, references)


def _require_none_of(prompt: SamplePrompt, *, sound: bool) -> None:
    """Raise `TrainError` for a prompt of sound that tells of pictures, or the other way round."""
    found = [name for name in (OF_PICTURES if sound else OF_SOUND) if getattr(prompt, name) != getattr(_PLAIN, name)]
    if found and sound:
        raise TrainError(f"{', '.join(found)}: the model makes sound, not pictures; leave it out")
    if found:
        raise TrainError(f"{', '.join(found)}: the model makes no sound; leave it out")


_PLAIN = SamplePrompt()


def _require_frames(prompt: SamplePrompt, kind: FirstFrame | None) -> None:
    """Raise `TrainError` unless a prompt names the frames that a model reads."""
    first, last = (kind is not None and kind.first), (kind is not None and kind.last)
    if prompt.image_path and not first:
        raise TrainError(
            "image_path: the model reads no first frame; leave it out (edit models see control_image_path, and "
            "HunyuanVideo 1.5 reads one with an image_encoder)"
        )
    optional = kind is not None and kind.chosen and not kind.control
    if first and not prompt.image_path and (prompt.end_image_path or not optional):
        raise TrainError("the model reads a first frame, and no image_path is given; add --i and a picture")
    if prompt.end_image_path and not last:
        raise TrainError("end_image_path: the model reads no last frame; leave it out")
    if last and not prompt.end_image_path:
        raise TrainError("the model reads a last frame too, and no end_image_path is given; add --ei and a picture")


def _require_control_video(prompt: SamplePrompt, kind: FirstFrame | None) -> None:
    """Raise `TrainError` unless a prompt names the control video that a model reads."""
    read = kind is not None and kind.control
    if read and not prompt.control_video_path:
        raise TrainError(
            "the model reads a control video, and no control_video_path is given; add --cn and a video, or a folder of "
            "its frames"
        )
    if prompt.control_video_path and not read:
        raise TrainError("control_video_path: the model reads no control video; leave it out")


def _require_controls(prompt: SamplePrompt, references: References | None) -> None:
    """Raise `TrainError` unless a prompt has as many control images as a model reads."""
    given, most = len(prompt.control_image_path), references.most if references else None
    if references and references.layers and not given:
        raise TrainError("the model takes a picture apart, and no control_image_path is given; add --ci and a picture")
    if references and most is not None and given > most:
        raise TrainError(f"has {given} control images, and {references.title} reads at most {most}")
