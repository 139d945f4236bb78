"""How far a prediction is from what it should be: the loss of an item, by sd-scripts' names and formulas."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from ..errors import TrainError
from .option import OptionGroup, Saved, option
from .rules import Choice, Number

__all__ = ["LossOptions", "item_losses"]


@dataclasses.dataclass(frozen=True)
class LossOptions(OptionGroup):
    """What of a difference counts. Musubi Tuner has the mean square alone."""

    loss_type: str = option(
        "l2",
        Choice(("l2", "l1", "huber", "smooth_l1")),
        "What is made of each difference: its square, as in Musubi; its absolute value; or, as in sd-scripts, the "
        "square where it is small and the absolute value where it is large, so that outliers count less.",
        saved=Saved.IF_SET,
        since=2,
    )
    huber_c: float = option(0.1, Number(), "For huber and smooth_l1: where small ends.", saved=Saved.IF_SET, since=2)
    huber_schedule: str = option(
        "exponential",
        Choice(("exponential", "constant")),
        "exponential: huber_c holds at the noise, and small ends at 1 at the data; constant: at every timestep. "
        "sd-scripts' snr is of a noise schedule, which a flow has not.",
        saved=Saved.IF_SET,
        graph=False,
    )
    huber_scale: float = option(
        1.0,
        Number(),
        "For huber and smooth_l1: what where small ends is multiplied with.",
        saved=Saved.IF_SET,
        graph=False,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss_type in ("huber", "smooth_l1"):
            for name in ("huber_c", "huber_scale"):
                if not getattr(self, name):
                    raise TrainError(f"{name} is 0, and loss_type {self.loss_type} is then 0 or l1; expected more")


def item_losses(options: LossOptions, difference: Tensor, t: Tensor) -> Tensor:
    """The mean loss of each item, (n,).

    Args:
        difference: (n, …), of what is predicted to what is right.
        t: (n,), from 0 at the data to 1 at the noise.
    """
    if options.loss_type == "l2":
        each = difference.square()
    elif options.loss_type == "l1":
        each = difference.abs()
    else:
        each = _huber(options, difference, t)
    return each.flatten(1).mean(1)


def _huber(options: LossOptions, difference: Tensor, t: Tensor) -> Tensor:
    """The pseudo-Huber loss, which is smooth where the two of its kinds meet."""
    c = torch.full_like(t, options.huber_c)
    if options.huber_schedule == "exponential":
        c = torch.exp(math.log(options.huber_c) * t)
    c = (c * options.huber_scale).view(-1, *[1] * (difference.dim() - 1))
    over = torch.sqrt(difference.square() + c**2) - c
    return 2 * over * (c if options.loss_type == "huber" else 1)
