"""Samples that are made while it trains: of what, and what came of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from torch import Tensor

from ..errors import TrainError
from .options import TrainOptions
from .prompts import SamplePrompt, read_prompts

__all__ = ["Sample", "prompts_of", "require_pictures", "require_text_alone", "texts_of"]


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


def require_text_alone(options: TrainOptions, reads: object) -> None:
    """Raise `TrainError` for samples of a model that reads a picture beside the noise; `reads`: whether it does."""
    if reads and options.sample.sample_prompts:
        raise TrainError(
            "sample_prompts: the model reads a picture beside the text, and samples are made from text alone here; "
            "leave sample_prompts out, or sample with the saved adapters in a workflow"
        )


_SOUND = ("ace_step", "ace_step_1_5")
"""Ids of the architectures that make sound."""


def require_pictures(options: TrainOptions, family: str) -> None:
    """Raise `TrainError` for samples of a model that makes sound."""
    if family in _SOUND and options.sample.sample_prompts:
        raise TrainError(
            "sample_prompts: the model makes sound, and samples are pictures and videos here; leave sample_prompts out"
        )


def texts_of(prompts: Iterable[SamplePrompt]) -> list[str]:
    """Every text of prompts that has to be encoded."""
    return sorted({text for prompt in prompts for text in (prompt.prompt, prompt.negative_prompt or "")})
