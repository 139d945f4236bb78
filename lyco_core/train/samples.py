"""Samples that are made while it trains: of what, and what came of it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Sequence
from pathlib import Path

from torch import Tensor

from ..errors import TrainError
from ..io.toml import path_of
from .first_frames import FirstFrame
from .options import TrainOptions
from .prompts import SamplePrompt, about_prompt, located, read_prompts
from .references import References

__all__ = ["Sample", "prompts_in", "prompts_of", "require_pictures", "require_pictures_of", "require_supplied"]


@dataclasses.dataclass(frozen=True)
class Sample:
    """A picture or a video, and what it was made of."""

    step: int
    """How many steps were done."""
    number: int
    """Of its prompt, from 0."""
    prompt: str
    seed: int
    path: str
    frames: Tensor
    """(n, height, width, 3), 0 to 255."""


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
        if not os.path.isfile(found):
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


def require_pictures_of(
    prompts: Sequence[SamplePrompt], kind: FirstFrame | None, references: References | None, image: str | None
) -> None:
    """Raise `TrainError` unless each prompt names the pictures that the model reads, and no others.

    Args:
        kind: how it comes by first frames; None: it reads none.
        references: how it reads control images.
        image: what ComfyUI calls the image that it reads beside the noise, of whatever kind.
    """
    if prompts and image and not kind:
        raise TrainError(
            f"sample_prompts: the model reads {image} beside the noise, which is no first frame and no prompt can "
            "give; leave sample_prompts out, or sample with the saved adapters in a workflow"
        )
    if prompts and kind and (kind.control or kind.asks):
        what = "a control video" if kind.control else "the caption with its first frame in sight"
        raise TrainError(
            f"sample_prompts: the model reads {what}, which samples here do not have; leave sample_prompts out, "
            "or sample with the saved adapters in a workflow"
        )
    for number, prompt in enumerate(prompts, 1):
        with about_prompt(number):
            _require_frames(prompt, kind)
            given, most = len(prompt.control_image_path), references.most if references else None
            if references and most is not None and given > most:
                raise TrainError(f"has {given} control images, and {references.title} reads at most {most}")


def _require_frames(prompt: SamplePrompt, kind: FirstFrame | None) -> None:
    """Raise `TrainError` unless a prompt names the frames that a model reads."""
    last = kind is not None and kind.last
    if prompt.image_path and not kind:
        raise TrainError(
            "image_path: the model reads no first frame; leave it out (edit models see control_image_path, and "
            "HunyuanVideo 1.5 reads one with an image_encoder)"
        )
    if kind and not prompt.image_path and (prompt.end_image_path or not kind.chosen):
        raise TrainError("the model reads a first frame, and no image_path is given; add --i and a picture")
    if prompt.end_image_path and not last:
        raise TrainError("end_image_path: the model reads no last frame; leave it out")
    if last and not prompt.end_image_path:
        raise TrainError("the model reads a last frame too, and no end_image_path is given; add --ei and a picture")


_SOUND = ("ace_step", "ace_step_1_5")
"""Ids of the architectures that make sound."""


def require_pictures(options: TrainOptions, family: str) -> None:
    """Raise `TrainError` for samples of a model that makes sound."""
    if family in _SOUND and options.sample.sample_prompts:
        raise TrainError(
            "sample_prompts: the model makes sound, and samples are pictures and videos here; leave sample_prompts out"
        )
