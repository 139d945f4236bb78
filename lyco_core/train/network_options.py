"""What is trained and how it begins, under Musubi Tuner's names and with its meanings."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

from ..adapters import LOW_RANK
from ..errors import TrainError
from ..patterns import PatternError, require_patterns
from .option import Choice, Number, Options, Texts, Truth, Whole, option

__all__ = ["NETWORK_ARGS", "NetworkOptions", "algorithm_of", "parse_network_args"]

_PROBABILITY = Number(0, 1, open=True)


@dataclasses.dataclass(frozen=True)
class NetworkOptions(Options):
    """The options of one network; every module of it has the same.

    Raises `TrainError` for one that is out of range.
    """

    algorithm: str = option("loha", Choice(tuple(LOW_RANK)), "What is trained.", rare=False)
    network_dim: int = option(4, Whole(1), "The rank.", rare=False)
    network_alpha: float = option(
        1.0,
        Number(),
        "ΔW is scaled by network_alpha / network_dim; 0 means network_dim, a scale of 1. A LoKr whose W2 is a full "
        "matrix is never scaled.",
        rare=False,
    )
    factor: int = option(
        -1,
        Whole(-1, but=0),
        "LoKr: how dimensions are split into those of W1 and W2. -1: as evenly as can be. N: into N and the rest "
        "where N divides, else into the largest divisor up to N.",
        rare=False,
    )
    rank_dropout: float = option(
        0.0,
        _PROBABILITY,
        "LoHa and LoKr: the probability with which a row of ΔW is left out of a step; the others grow by 1 / (1 - p). "
        "LoRA: the same of a rank, for each sample.",
    )
    module_dropout: float = option(
        0.0, _PROBABILITY, "The probability with which a module is left out of a step; nothing makes up for it."
    )
    network_dropout: float = option(
        0.0, _PROBABILITY, "LoRA: dropout between its two matrices. LoHa and LoKr have no such place and ignore it."
    )
    exclude_patterns: tuple[str, ...] = option(
        (),
        Texts(),
        "Regular expressions; a module whose whole dotted name one matches is not trained. They come on top of the "
        "architecture's own.",
    )
    include_patterns: tuple[str, ...] = option(
        (),
        Texts(),
        "Regular expressions; a module that one matches is trained although it is excluded. They never narrow the "
        "choice by themselves.",
    )
    loraplus_lr_ratio: float = option(
        0.0,
        Number(),
        "LoRA+ (arXiv:2402.12354): how much faster LoRA's up matrices learn; 0: off. Refused for LoHa and LoKr, which "
        "have none.",
    )
    verbose: bool = option(False, Truth(), "Lists every module that is trained, and every one that is not and why.")
    seed: int = 0
    """Of the first values."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("exclude_patterns", "include_patterns"):
            try:
                require_patterns(getattr(self, name))
            except PatternError as error:
                raise TrainError(f"{name}: {error}") from None
        if self.loraplus_lr_ratio and self.algorithm != "lora":
            raise TrainError(
                f"loraplus_lr_ratio is {self.loraplus_lr_ratio:g}: LoRA+ speeds up the up matrix of a LoRA, and a "
                f"{LOW_RANK[self.algorithm].title} has none; leave it out, or train a LoRA"
            )

    @property
    def alpha(self) -> float:
        """The alpha that counts: `network_alpha`, or the rank where that is 0."""
        return float(self.network_alpha or self.network_dim)

    def network_args(self) -> dict[str, str]:
        """What `--network_args` would say, by name: LoKr's factor always, the rest where it is set."""
        args: dict[str, str] = {}
        for field in dataclasses.fields(self):
            value: object = getattr(self, field.name)
            always = field.name == "factor" and self.algorithm == "lokr"
            if field.name in NETWORK_ARGS and (value != field.default or always):
                args[field.name] = str(list(cast(Sequence[str], value)) if isinstance(value, tuple) else value)
        return args


def algorithm_of(network_module: object) -> str:
    """The algorithm of Musubi's `--network_module`: `networks.loha`, `networks.lora_wan`, or `loha` itself.

    Raises `TrainError` for any other.
    """
    name = str(network_module).removeprefix("networks.")
    algorithm = "lora" if name.startswith("lora_") else name
    if algorithm not in LOW_RANK:
        known = ", ".join(f"networks.{a}" for a in LOW_RANK)
        raise TrainError(f"network_module is {network_module!r}, expected one of {known}")
    return algorithm


def parse_network_args(texts: Iterable[str]) -> dict[str, Any]:
    """Musubi's `--network_args`, such as `factor=4` and `exclude_patterns=[r'.*ffn.*']`, by option.

    Raises `TrainError` for what is no such option (Musubi ignores it) or cannot be read.
    """
    parsed: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals or name not in NETWORK_ARGS:
            raise TrainError(
                f"network_args: {text!r} is none of them; expected NAME=VALUE with one of {', '.join(NETWORK_ARGS)}"
            )
        try:
            parsed[name] = NETWORK_ARGS[name](value)
        except (ValueError, SyntaxError, TypeError, KeyError):
            raise TrainError(f"network_args: {text!r} cannot be read; {_EXPECTED[NETWORK_ARGS[name]]}") from None
    return parsed


def _patterns(text: str) -> tuple[str, ...]:
    value: object = ast.literal_eval(text)
    if not isinstance(value, (list, tuple)):
        raise ValueError(text)
    return tuple(cast(Sequence[str], value))


def _truth(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]


NETWORK_ARGS: Mapping[str, Callable[[str], Any]] = {
    "factor": int,
    "rank_dropout": float,
    "module_dropout": float,
    "exclude_patterns": _patterns,
    "include_patterns": _patterns,
    "loraplus_lr_ratio": float,
    "verbose": _truth,
}
"""The options that Musubi takes through `--network_args`, and how their text is read."""

_EXPECTED: dict[Callable[[str], Any], str] = {
    int: "expected a whole number",
    float: "expected a number",
    _patterns: "expected a list of texts, such as [r'.*ffn.*']",
    _truth: "expected True or False",
}
