"""What is trained and how it begins, under Musubi Tuner's names and with its meanings."""

from __future__ import annotations

import ast
import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

from ..adapters import ALGORITHMS
from ..errors import TrainError

__all__ = ["NETWORK_KEYS", "NetworkOptions", "algorithm_of", "network_options", "parse_network_args"]

NETWORK_KEYS = ("network_module", "network_dim", "network_alpha", "network_dropout", "network_args")
"""The options of Musubi's command line that `network_options` takes."""


@dataclasses.dataclass(frozen=True)
class NetworkOptions:
    """The options of one network; every module of it has the same.

    Raises `TrainError` for one that is out of range.
    """

    algorithm: str
    """`loha`, `lokr` or `lora`."""
    network_dim: int = 4
    """The rank."""
    network_alpha: float = 1.0
    """ΔW is scaled by network_alpha / network_dim; 0 means network_dim, so a scale of 1 (Musubi). A
    LoKr whose W2 is a full matrix is never scaled."""
    factor: int = -1
    """LoKr: how dimensions are split into those of W1 and W2. Below 0: as evenly as can be. N: into N
    and the rest where N divides, else into the largest divisor up to N (LyCORIS' dialect)."""
    rank_dropout: float = 0.0
    """LoHa, LoKr: the probability with which a row of ΔW is left out of a step, one draw for the whole
    batch; what is left grows by 1 / (1 - p). LoRA: the same of a rank, one draw for each sample."""
    module_dropout: float = 0.0
    """The probability with which a module is left out of a step; nothing makes up for it."""
    network_dropout: float = 0.0
    """LoRA: dropout of the numbers between its two matrices. LoHa and LoKr have no such place, and
    Musubi ignores it there: so does this."""
    exclude_patterns: tuple[str, ...] = ()
    """Regular expressions; a module whose whole dotted name one matches is not trained. They come on
    top of the architecture's own."""
    include_patterns: tuple[str, ...] = ()
    """Regular expressions; a module that one matches is trained although it is excluded. They never
    narrow the choice by themselves (Musubi's page says so, its code does not)."""
    loraplus_lr_ratio: float | None = None
    """LoRA+ (arXiv:2402.12354): how much faster LoRA's up matrices learn."""
    verbose: bool = False
    """Whether what is trained and what is not is listed."""
    seed: int = 0
    """Of the first values."""

    def __post_init__(self) -> None:
        _require("algorithm", repr(self.algorithm), f"one of {', '.join(ALGORITHMS)}", self.algorithm in ALGORITHMS)
        _require("network_dim", self.network_dim, "a whole number of at least 1", _whole(self.network_dim, 1))
        _require("network_alpha", self.network_alpha, "a finite number of at least 0", _number(self.network_alpha))
        whole = _whole(self.factor)
        _require("factor", self.factor, "a whole number but 0, -1 for an even split", whole and self.factor != 0)
        for name in ("rank_dropout", "module_dropout", "network_dropout"):
            value = getattr(self, name)
            _require(name, value, "a probability of at least 0 and less than 1", _number(value, below=1))
        for name in ("exclude_patterns", "include_patterns"):
            patterns = getattr(self, name)
            _require(name, repr(patterns), "a list of regular expressions", _is_list(patterns))
            for pattern in patterns:
                _require_pattern(name, pattern)
            object.__setattr__(self, name, tuple(patterns))
        if self.loraplus_lr_ratio is not None:
            self._check_loraplus(self.loraplus_lr_ratio)

    def _check_loraplus(self, ratio: float) -> None:
        if self.algorithm != "lora":
            title = ALGORITHMS[self.algorithm].title
            raise TrainError(
                f"loraplus_lr_ratio is {ratio}: LoRA+ speeds up the up matrix of a LoRA, and a {title} has none; "
                "leave it out, or train a LoRA"
            )
        _require("loraplus_lr_ratio", ratio, "a finite number above 0", _number(ratio) and ratio > 0)

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


def network_options(settings: Mapping[str, Any], seed: int = 0) -> NetworkOptions:
    """The options that a configuration gives under Musubi's names, `NETWORK_KEYS`; what is missing has its default.

    Raises `TrainError` for another name, no `network_module`, or what `NetworkOptions` refuses.
    """
    if unknown := sorted(settings.keys() - set(NETWORK_KEYS)):
        raise TrainError(f"there is no option {unknown[0]}; expected {', '.join(NETWORK_KEYS)}")
    given = {name: value for name, value in settings.items() if value is not None}
    algorithm = algorithm_of(given.pop("network_module", None))
    args = given.pop("network_args", ())
    _require("network_args", repr(args), "a list of texts, such as ['factor=4']", _is_list(args))
    return NetworkOptions(algorithm, **given, **parse_network_args(args), seed=seed)


def algorithm_of(network_module: object) -> str:
    """The algorithm of Musubi's `--network_module`: `networks.loha`, `networks.lora_wan`, or `loha` itself.

    Raises `TrainError` for any other.
    """
    name = str(network_module).removeprefix("networks.")
    algorithm = "lora" if name.startswith("lora_") else name
    if algorithm not in ALGORITHMS:
        known = ", ".join(f"networks.{a}" for a in ALGORITHMS)
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


def _require(name: str, value: object, expected: str, holds: bool) -> None:
    if not holds:
        raise TrainError(f"{name} is {value}, expected {expected}")


def _whole(value: object, least: int | None = None) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and (least is None or value >= least)


def _number(value: object, below: float = math.inf) -> bool:
    return isinstance(value, (int, float)) and 0 <= value < below


def _is_list(value: object) -> bool:
    return isinstance(value, (list, tuple))


def _require_pattern(name: str, pattern: object) -> None:
    try:
        re.compile(pattern if isinstance(pattern, str) else "(")
    except (re.error, RecursionError, OverflowError) as error:
        raise TrainError(f"{name}: {pattern!r} is no regular expression: {error}") from None
