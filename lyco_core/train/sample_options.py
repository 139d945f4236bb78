"""When samples are made while it trains, and of what; and how each family is sampled unless a prompt says otherwise."""

from __future__ import annotations

import dataclasses
from typing import Any

from ..errors import TrainError
from .option import OptionGroup, option
from .rules import Prompts, Truth, Whole
from .sample_prompt import SamplePrompt

__all__ = ["SampleOptions", "Strengths", "strengths"]


@dataclasses.dataclass(frozen=True)
class SampleOptions(OptionGroup):
    """What is sampled with the adapter as it is by then, into the folder `sample` beside it."""

    sample_prompts: str | tuple[str | dict[str, Any], ...] = option(
        (),
        Prompts(),
        "What samples are made of, as Musubi has them: a cat --w 512 --h 512 --f 1 --d 42 --s 20; a line that begins "
        "with # is none.",
        since=2,
    )
    sample_every_n_steps: int = option(
        0, Whole(0), "Makes a sample of each prompt every so many steps; 0: never.", since=2
    )
    sample_every_n_epochs: int = option(
        0, Whole(0), "Makes a sample of each prompt every so many epochs; 0: never.", since=2
    )
    sample_at_first: bool = option(False, Truth(), "Makes a sample of each prompt before the first step too.", since=2)

    def __post_init__(self) -> None:
        super().__post_init__()
        when = self.sample_every_n_steps or self.sample_every_n_epochs or self.sample_at_first
        if self.sample_prompts and not when:
            raise TrainError(
                "sample_prompts needs to be told when; give sample_every_n_steps, sample_every_n_epochs or "
                "sample_at_first, or no prompts"
            )
        if when and not self.sample_prompts:
            raise TrainError("samples are asked for, and there is nothing in sample_prompts; give some, or no times")

    def due(self, step: int, steps_per_epoch: int) -> bool:
        """Whether samples are made after a step; 0: before the first."""
        if step == 0:
            return self.sample_at_first
        epochs = self.sample_every_n_epochs * steps_per_epoch
        return any(every and step % every == 0 for every in (self.sample_every_n_steps, epochs))


@dataclasses.dataclass(frozen=True)
class Strengths:
    """How strongly a prompt counts."""

    cfg: float
    """1: it is sampled without a negative prompt."""
    guidance: float
    """What the model is told, if it has an input for it."""


_GUIDANCE = {"flux1": 3.5, "flux2": 4.0, "hunyuan_video": 6.0}
_CFG = {
    "flux1": 1.0,
    "wan": 5.0,
    "hunyuan_video_1_5": 6.0,
    "kandinsky5": 5.0,
    "ideogram4": 7.0,
    "hidream_o1": 5.0,
    "ace_step": 5.0,
    "ace_step_1_5": 6.0,
}
_USUAL = 4.0
_OF_TWO = 3.5
"""Of two models; Wan 2.2's own are 4 and 3 (high, low noise) for text to video, 3.5 twice for image to video."""

_TOLD_AS_GUIDANCE = ("flux2", "hunyuan_video_1_5", "kandinsky5", "ideogram4", "hidream_o1")
"""Families whose cfg_scale Musubi reads from guidance_scale."""


def strengths(prompt: SamplePrompt, family: str, *, guided: bool, two: bool = False) -> Strengths:
    """Those of a prompt.

    Args:
        guided: whether the model has an input for guidance, which stands for what a negative prompt does.
        two: whether two models sample in turn.
    """
    cfg = prompt.cfg_scale
    if cfg is None and not guided and family in _TOLD_AS_GUIDANCE:
        cfg = prompt.guidance_scale
    if cfg is None:
        cfg = 1.0 if guided else _OF_TWO if two else _CFG.get(family, _USUAL)
    guidance = prompt.guidance_scale
    return Strengths(cfg or 1.0, _GUIDANCE.get(family, _USUAL) if guidance is None else guidance)
