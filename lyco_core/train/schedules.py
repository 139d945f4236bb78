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
from .rules import Choice, Number, Text, Texts, Whole

__all__ = ["SCHEDULES", "ScheduleOptions", "rate", "require_rate"]

logger = logging.getLogger("lyco")

_LAST_RATE = 1e-7
"""The learning rate at which polynomial ends, whatever learning_rate is."""

_LEAST_OF_REX = 0.01
"""The part of the rate that rex leaves, unless lr_scheduler_min_lr_ratio says another."""


@dataclasses.dataclass(frozen=True)
class _Span:
    """Where in the part after the warm-up a step lies."""

    step: int
    """Its number, from 0 after the warm-up; below 0 within it."""
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


def _inverse_sqrt(options: ScheduleOptions, span: _Span) -> float:
    scale = options.lr_scheduler_timescale or span.warmup or 10_000
    return ((span.step + scale) / scale) ** -0.5


def _stable(options: ScheduleOptions, span: _Span) -> float:
    low, decay = options.lr_scheduler_min_lr_ratio, _count(options.lr_decay_steps, span.steps + span.warmup)
    since = span.step - (span.steps - decay)
    if since < 0:
        return 1.0
    if since >= decay:
        return low
    return low + (1 - low) * (1 + math.cos(math.pi * options.lr_scheduler_num_cycles * since / decay)) / 2


def _rex(options: ScheduleOptions, span: _Span) -> float:
    """Reflected exponential (arXiv:2107.04197), with Musubi's softer beginning."""
    low = options.lr_scheduler_min_lr_ratio or _LEAST_OF_REX
    if span.step >= span.steps or span.step == -1 or (span.step == 0 and span.warmup == 1):
        return low
    left = 1 - span.step % span.steps / span.steps  # before the warm-up's second step the curve is met from its end
    return low + (1 - low) * left / (0.1 + 0.9 * left)


def _rex_warmup(options: ScheduleOptions, span: _Span) -> float:
    """The warm-up begins at the second step, as Musubi's does."""
    low, step = options.lr_scheduler_min_lr_ratio or _LEAST_OF_REX, span.step + span.warmup
    return _rex(options, span) if step == 0 else low + (1 - low) * (step - 1) / (span.warmup - 1)


def _from_least(options: ScheduleOptions, span: _Span) -> float:
    low = options.lr_scheduler_min_lr_ratio
    return low + (1 - low) * (span.step + span.warmup) / span.warmup


SCHEDULES: dict[str, Callable[[ScheduleOptions, _Span], float]] = {
    "constant": lambda options, span: 1.0,
    "linear": lambda options, span: 1 - span.progress,
    "cosine": _cosine,
    "cosine_with_restarts": _restarts,
    "polynomial": _polynomial,
    "inverse_sqrt": _inverse_sqrt,
    "constant_with_warmup": lambda options, span: 1.0,  # Musubi's other name: here constant may have a warm-up too
    "cosine_with_min_lr": _cosine_with_min_lr,
    "warmup_stable_decay": _stable,
    "rex": _rex,
}
"""`lr_scheduler` -> the multiplier after the warm-up."""

_WARMUPS: dict[str, Callable[[ScheduleOptions, _Span], float]] = {
    "warmup_stable_decay": _from_least,
    "rex": _rex_warmup,
}
"""`lr_scheduler` -> the multiplier within the warm-up, where it does not grow from 0."""


def _part(steps: object) -> object:
    """Musubi's other form of a part of all steps: 10%."""
    try:
        return float(steps.removesuffix("%")) / (100 if steps.endswith("%") else 1) if isinstance(steps, str) else steps
    except ValueError:
        return steps


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
        read=_part,
    )
    lr_decay_steps: float = option(
        0.0,
        Number(),
        "For warmup_stable_decay: the last steps, in which it falls; below 1: that part of all steps.",
        read=_part,
        graph=False,
    )
    lr_scheduler_timescale: int = option(
        0, Whole(0), "For inverse_sqrt: steps after which it falls to 0.7; 0: those of the warm-up.", graph=False
    )
    lr_scheduler_num_cycles: int = option(
        1,
        Whole(1),
        "For cosine_with_restarts: how often it falls; for cosine_with_min_lr and warmup_stable_decay: how often it "
        "falls or rises again.",
    )
    lr_scheduler_power: float = option(1.0, Number(), "For polynomial, which ends at 1e-7.")
    lr_scheduler_min_lr_ratio: float = option(
        0.0,
        Number(0, 1),
        "For cosine_with_min_lr, warmup_stable_decay and rex: the part of the rate that is left; for rex 0 means 0.01. "
        "The others end as they do.",
    )
    lr_scheduler_type: str = option(
        "",
        Text(),
        "Instead of lr_scheduler: a class of torch.optim.lr_scheduler, such as OneCycleLR, or the path of one. It is "
        "stepped after every step of the optimizer.",
        saved=Saved.IF_SET,
        draws=True,  # torch's state of a schedule overwrites what another one is told
        graph=False,
    )
    lr_scheduler_args: tuple[str, ...] = option(
        (), Texts(), "NAME=VALUE for lr_scheduler_type, such as step_size=100.", draws=True, graph=False
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("lr_warmup_steps", "lr_decay_steps"):
            steps: float = getattr(self, name)
            if steps >= 1 and not steps.is_integer():
                raise TrainError(f"{name} is {steps:g}, expected a whole number of steps, or a part below 1")
        if self.lr_scheduler_args and not self.lr_scheduler_type:
            raise TrainError(
                f"lr_scheduler_args {list(self.lr_scheduler_args)} are for lr_scheduler_type, which is empty; "
                "lr_scheduler has options of its own: lr_scheduler_power and so on"
            )
        if self.lr_scheduler_type and (self.lr_scheduler != "constant" or self.lr_warmup_steps):
            raise TrainError(
                f"lr_scheduler_type is {self.lr_scheduler_type}, which stands in for lr_scheduler and lr_warmup_steps; "
                "leave them out"
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
    warmup = _count(options.lr_warmup_steps, steps)
    span = _Span(step - warmup, max(1, steps - warmup), warmup, learning_rate)
    if step >= warmup:
        return SCHEDULES[options.lr_scheduler](options, span)
    grown = _WARMUPS.get(options.lr_scheduler)
    return step / warmup if grown is None else grown(options, span)


def _count(steps: float, of: int) -> int:
    """A number of steps, or a part of all."""
    return int(steps * of) if steps < 1 else int(steps)
