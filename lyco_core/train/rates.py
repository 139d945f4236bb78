"""The learning rates of an optimizer's groups over time: by `lr_scheduler`, or by a class of torch's kind."""

from __future__ import annotations

import importlib
import inspect
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler

from ..errors import TrainError
from .optimizers import OptimizerOptions, is_schedule_free, named_arguments
from .schedules import ScheduleOptions, rate, require_rate

__all__ = ["Rates"]

logger = logging.getLogger("lyco")


class Rates:
    """What the learning rates are in each step.

    Those of `lr_scheduler` are a function of the step. A class has a state, which is saved.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, options: OptimizerOptions, schedule: ScheduleOptions) -> None:
        """Raises `TrainError` for a schedule that cannot be made, or not with this optimizer."""
        require_rate(schedule, options.learning_rate)
        self._optimizer, self._schedule, self._rate = optimizer, schedule, options.learning_rate
        self._free = is_schedule_free(optimizer)
        self._own: Any = None
        """The schedule of `lr_scheduler_type`."""
        if self._free and (schedule.lr_scheduler != "constant" or schedule.lr_warmup_steps):
            logger.warning("%s has no use for lr_scheduler and lr_warmup_steps", options.optimizer_type)
        self._bases: list[float] = [group["lr"] for group in optimizer.param_groups]
        if schedule.lr_scheduler_type:
            if self._free:
                raise TrainError(
                    f"lr_scheduler_type is {schedule.lr_scheduler_type}, and {options.optimizer_type} follows no "
                    "schedule; leave one of them out"
                )
            self._own = _made(optimizer, schedule)

    def set(self, step: int, steps: int) -> None:
        """Give the groups their rates for step `step`, from 0, of `steps`."""
        if self._own is None:
            now = 1.0 if self._free else rate(self._schedule, step, steps, self._rate)
            for group, base in zip(self._optimizer.param_groups, self._bases, strict=True):
                group["lr"] = base * now

    def moved(self) -> None:
        """The optimizer has made its step."""
        if self._own is None:
            return
        try:
            self._own.step()
        except (ValueError, IndexError) as error:
            name = self._schedule.lr_scheduler_type
            raise TrainError(f"lr_scheduler_type {name} goes no further: {error}; set lr_scheduler_args") from None

    def state_dict(self) -> dict[str, Any]:
        """What has to be saved; empty for `lr_scheduler`."""
        return {} if self._own is None else self._own.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that `state_dict` gave. Raises `TrainError` for another kind's."""
        if bool(state) != (self._own is not None):
            raise TrainError(f"lr_scheduler_type was {'set' if state else 'empty'} when it was saved; set it back")
        if self._own is not None:
            self._own.load_state_dict(dict(state))


def _made(optimizer: torch.optim.Optimizer, schedule: ScheduleOptions) -> LRScheduler:
    name = schedule.lr_scheduler_type
    path, _, cls_name = name.rpartition(".")
    path = path or "torch.optim.lr_scheduler"
    try:
        cls: Any = getattr(importlib.import_module(path), cls_name)
    except ImportError as error:
        package = path.partition(".")[0]
        raise TrainError(
            f"lr_scheduler_type {name} needs {package}, which cannot be imported ({error}): pip install {package}, or "
            "choose an lr_scheduler"
        ) from None
    except AttributeError:
        raise TrainError(f"lr_scheduler_type {name}: {path} has no {cls_name}") from None
    if not (isinstance(cls, type) and issubclass(cls, LRScheduler)):
        raise TrainError(f"lr_scheduler_type {name} is no schedule of torch's kind; choose an lr_scheduler, say")
    if needed := _needed(cls.step):
        raise TrainError(
            f"lr_scheduler_type {name} is stepped with {', '.join(needed)}, which a training has not after every step; "
            "choose one that goes by steps"
        )
    try:
        return cls(optimizer, **named_arguments("lr_scheduler_args", schedule.lr_scheduler_args))
    except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise TrainError(
            f"lr_scheduler_args {list(schedule.lr_scheduler_args)}: {name} refuses them: {error}"
        ) from None


def _needed(step: Any) -> Sequence[str]:  # noqa: ANN401
    """What a method has to be told."""
    parameters = list(inspect.signature(step).parameters.values())[1:]
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [one.name for one in parameters if one.default is inspect.Parameter.empty and one.kind not in kinds]
