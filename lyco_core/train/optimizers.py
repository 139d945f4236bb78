"""Optimizers by Musubi Tuner's names: torch's own, and those of libraries where they are installed."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import re
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from ..errors import TrainError
from .option import OptionGroup, Saved, option
from .rules import Choice, Number, Texts

__all__ = [
    "OPTIMIZERS",
    "OptimizerOptions",
    "as_evaluated",
    "is_schedule_free",
    "make_optimizer",
    "named_arguments",
    "optimizer_of",
]


@dataclasses.dataclass(frozen=True)
class _Optimizer:
    """Where a class is, and what it is made with unless a person says otherwise."""

    module: str
    name: str
    defaults: tuple[tuple[str, Any], ...] = ()
    install: str = ""


OPTIMIZERS = {
    "adamw": _Optimizer("torch.optim", "AdamW"),
    "adamw8bit": _Optimizer("bitsandbytes.optim", "AdamW8bit", install="bitsandbytes"),
    "prodigy": _Optimizer("prodigyopt", "Prodigy", install="prodigyopt"),
    # torch has an Adafactor too, but Musubi's is transformers', and its arguments are other ones.
    "adafactor": _Optimizer(
        "transformers.optimization",
        "Adafactor",
        (("scale_parameter", False), ("relative_step", False), ("warmup_init", False)),
        "transformers",
    ),
}
"""`optimizer_type` -> class. Adafactor follows learning_rate and lr_scheduler unless told to make its own steps."""


_CLASS = re.compile(r"([A-Za-z_]\w*\.)+[A-Za-z_]\w*")


def optimizer_of(optimizer_type: object) -> str:
    """Musubi's `--optimizer_type`: a name of `OPTIMIZERS` in any case, a class of torch.optim, or the path of one."""
    name = str(optimizer_type) or "adamw"
    if name.lower() in OPTIMIZERS:
        return name.lower()
    found = getattr(torch.optim, name, None)
    is_class = isinstance(found, type) and issubclass(found, torch.optim.Optimizer)
    return f"torch.optim.{name}" if is_class else name


@dataclasses.dataclass(frozen=True)
class _NameOrClass(Choice):
    """One of the names in `values`, or the path of a class."""

    @property
    def expected(self) -> str:
        """The values that are allowed, in words."""
        return f"{super().expected}, or the path of a class, such as torch.optim.AdamW"

    def holds(self, value: object) -> bool:
        """Whether `value` is allowed."""
        return super().holds(value) or (isinstance(value, str) and _CLASS.fullmatch(value) is not None)


@dataclasses.dataclass(frozen=True)
class OptimizerOptions(OptionGroup):
    """Which optimizer moves the parameters, and how far."""

    optimizer_type: str = option(
        "adamw",
        _NameOrClass(tuple(OPTIMIZERS)),
        "adamw8bit needs bitsandbytes, prodigy needs prodigyopt (learning_rate 1), adafactor needs transformers.",
        read=optimizer_of,
    )
    optimizer_args: tuple[str, ...] = option(
        (), Texts(), "NAME=VALUE for the optimizer, such as weight_decay=0.01 or betas=0.9,0.99."
    )
    learning_rate: float = option(1e-4, Number(), "How far a step goes.", rare=False, saved=Saved.ALWAYS)
    max_grad_norm: float = option(
        1.0, Number(), "Longer gradients are shortened to this norm; 0: never.", saved=Saved.ALWAYS
    )
    scale_weight_norms: float = option(
        0.0,
        Number(),
        "If above 0: after every step a module whose ΔW has a larger norm (the root of the sum of its squares) is "
        "scaled down to it. Musubi does it to LoRA alone; here to LoHa and LoKr as well.",
        saved=Saved.IF_SET,
        since=2,
    )


def make_optimizer(options: OptimizerOptions, groups: Sequence[dict[str, Any]]) -> torch.optim.Optimizer:
    """The optimizer of parameter groups.

    Raises:
        TrainError: its library is not installed, or it does not take an argument.
    """
    path, _, name = options.optimizer_type.rpartition(".")
    kind = OPTIMIZERS.get(options.optimizer_type) or _Optimizer(path, name, install=path.partition(".")[0])
    try:
        cls = getattr(importlib.import_module(kind.module), kind.name)
    except ImportError as error:
        raise TrainError(
            f"optimizer_type {options.optimizer_type} needs {kind.install}, which cannot be imported ({error}): "
            f"pip install {kind.install}, or choose adamw"
        ) from None
    except AttributeError:
        raise TrainError(f"optimizer_type {options.optimizer_type}: {kind.module} has no {kind.name}") from None
    if not (isinstance(cls, type) and issubclass(cls, torch.optim.Optimizer)):
        raise TrainError(f"optimizer_type {options.optimizer_type} is no optimizer of torch's kind; choose adamw, say")
    arguments = dict(kind.defaults) | named_arguments("optimizer_args", options.optimizer_args)
    if "lr" in arguments:  # each group has its own, which would win
        raise TrainError(f"optimizer_args has lr={arguments['lr']!r}, which is the option learning_rate")
    if kind.name == "Prodigy" and len({group["lr"] for group in groups} - {0.0}) > 1:
        raise TrainError(
            f"optimizer_type {options.optimizer_type} finds one learning rate for all, and loraplus_lr_ratio or "
            "network_reg_lrs give several; leave these out, or choose adamw"
        )
    if options.scale_weight_norms and all(callable(getattr(cls, name, None)) for name in ("train", "eval")):
        raise TrainError(
            f"scale_weight_norms is {options.scale_weight_norms:g}, and {options.optimizer_type} keeps averages that "
            "it does not scale; leave it out, or choose adamw"
        )
    try:
        return cls(list(groups), **arguments)
    except (TypeError, ValueError, IndexError, RuntimeError) as error:
        raise TrainError(
            f"optimizer_args {list(options.optimizer_args)}: {options.optimizer_type} refuses them: {error}"
        ) from None


def is_schedule_free(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimizer moves other parameters than are to be used, and so has no use for a schedule."""
    return all(callable(getattr(optimizer, name, None)) for name in ("train", "eval"))


@contextmanager
def as_evaluated(optimizer: torch.optim.Optimizer) -> Generator[None]:
    """Inside, the parameters are those to use, where a schedule-free optimizer moves others.

    Afterwards they are what they were, bit for bit: the optimizer's own way back rounds.
    """
    modes: Any = optimizer
    if not is_schedule_free(optimizer):
        yield
        return
    moved = [(p, p.detach().clone()) for group in optimizer.param_groups for p in group["params"]]
    modes.eval()
    try:
        yield
    finally:
        modes.train()
        with torch.no_grad():
            for parameter, value in moved:
                parameter.copy_(value)


def named_arguments(option: str, texts: Sequence[str]) -> dict[str, Any]:
    """What the texts of an option say, each of which is NAME=VALUE. Raises `TrainError` for another."""
    arguments: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        try:
            arguments[name.strip()] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            equals = ""
        if not equals or not name.strip().isidentifier():
            raise TrainError(f"{option}: {text!r} cannot be read, expected NAME=VALUE, such as weight_decay=0.01")
    return arguments
