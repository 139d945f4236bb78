"""Learning rate over time: what it is multiplied with at each step.

The formulas are those of the transformers library, which Musubi Tuner uses. A schedule is a
function of the step, so that there is nothing of it to save.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable

from ..errors import TrainError
from .option import OptionGroup, Saved, option
from .rules import Choice, Number, Whole

__all__ = ["SCHEDULES", "ScheduleOptions", "rate", "require_rate"]

logger = logging.getLogger("lyco")

_LAST_RATE = 1e-7
"""The learning rate at which polynomial ends, whatever learning_rate is."""


@dataclasses.dataclass(frozen=True)
class _Span:
    """Where in the part after the warm-up a step lies."""

    step: int
    """Its number, from 0 after the warm-up."""
    steps: int
    """All of them after the warm-up, at least 1."""
    warmup: int
    learning_rate: float

    @property
    def progress(self) -> float:
        return min(1.0, self.step / self.steps)


def _cosine(_: ScheduleOptions, span: _Span) -> float:
    return (1 + math.cos(math.pi * span.progress)) / 2


def _cosine_with_min_lr(options: ScheduleOptions, span: _Span) -> float:
    low, cycles = options.lr_scheduler_min_lr_ratio, options.lr_scheduler_num_cycles
    return low + (1 - low) * (1 + math.cos(math.pi * cycles * span.progress)) / 2


def _restarts(options: ScheduleOptions, span: _Span) -> float:
    if span.progress >= 1:
        return 0.0
    return (1 + math.cos(math.pi * (options.lr_scheduler_num_cycles * span.progress % 1))) / 2


def _polynomial(options: ScheduleOptions, span: _Span) -> float:
    low = _LAST_RATE / span.learning_rate
    return low + (1 - low) * (1 - span.progress) ** options.lr_scheduler_power


def _inverse_sqrt(_: ScheduleOptions, span: _Span) -> float:
    scale = span.warmup or 10_000
    return ((span.step + scale) / scale) ** -0.5


SCHEDULES: dict[str, Callable[[ScheduleOptions, _Span], float]] = {
    "constant": lambda options, span: 1.0,
    "linear": lambda options, span: 1 - span.progress,
    "cosine": _cosine,
    "cosine_with_restarts": _restarts,
    "polynomial": _polynomial,
    "inverse_sqrt": _inverse_sqrt,
    "constant_with_warmup": lambda options, span: 1.0,  # Musubi's other name: here constant may have a warm-up too
    "cosine_with_min_lr": _cosine_with_min_lr,
}
"""`lr_scheduler` -> the multiplier after the warm-up."""


@dataclasses.dataclass(frozen=True)
class ScheduleOptions(OptionGroup):
    """How the learning rate changes."""

    lr_scheduler: str = option(
        "constant", Choice(tuple(SCHEDULES)), "How the learning rate falls after the warm-up.", saved=Saved.ALWAYS
    )
    lr_warmup_steps: float = option(
        0.0,
        Number(),
        "Steps in which the learning rate grows from 0; below 1: that part of all steps.",
        saved=Saved.ALWAYS,
    )
    lr_scheduler_num_cycles: int = option(
        1,
        Whole(1),
        "For cosine_with_restarts: how often it falls; for cosine_with_min_lr: how often it falls or rises again.",
    )
    lr_scheduler_power: float = option(1.0, Number(), "For polynomial, which ends at 1e-7.")
    lr_scheduler_min_lr_ratio: float = option(
        0.0, Number(0, 1), "For cosine_with_min_lr: the part of the rate that is left. The others end as they do."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lr_warmup_steps >= 1 and not self.lr_warmup_steps.is_integer():
            raise TrainError(
                f"lr_warmup_steps is {self.lr_warmup_steps:g}, expected a whole number of steps, or a part below 1"
            )
        if self.lr_scheduler == "cosine" and self.lr_scheduler_min_lr_ratio:
            logger.warning("lr_scheduler cosine falls to 0; cosine_with_min_lr is what has lr_scheduler_min_lr_ratio")


def require_rate(options: ScheduleOptions, learning_rate: float) -> None:
    """Raises `TrainError` for a schedule that cannot begin at `learning_rate`."""
    if options.lr_scheduler == "polynomial" and learning_rate <= _LAST_RATE:
        raise TrainError(
            f"lr_scheduler polynomial ends at {_LAST_RATE:g} and learning_rate is {learning_rate:g}; raise it, or "
            "choose linear"
        )


def rate(options: ScheduleOptions, step: int, steps: int, learning_rate: float) -> float:
    """The factor that the learning rate has in a step.

    Args:
        step: of the optimizer, from 0.
        steps: all of them.
        learning_rate: the option.
    """
    warmup = options.lr_warmup_steps
    warmup = int(warmup * steps) if warmup < 1 else int(warmup)
    if step < warmup:
        return step / warmup
    span = _Span(step - warmup, max(1, steps - warmup), warmup, learning_rate)
    return SCHEDULES[options.lr_scheduler](options, span)
