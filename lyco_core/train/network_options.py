"""What is trained and how it begins, under Musubi Tuner's names and with its meanings."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Collection, Iterable, Sequence
from typing import Any, cast

from ..adapters import LOW_RANK
from ..errors import TrainError
from ..patterns import PatternError, matches, require_patterns
from .option import Option, OptionGroup, Saved, option, options_in
from .rules import Choice, Number, Pairs, Texts, Truth, Whole

__all__ = ["NetworkOptions", "algorithm_of", "parse_network_args"]

logger = logging.getLogger("lyco")

_PROBABILITY = Number(0, 1, open=True)
_RANKS, _RATES = Pairs(Whole(1)), Pairs(Number())


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


@dataclasses.dataclass(frozen=True)
class NetworkOptions(OptionGroup):
    """The options of one network; every module of it has the same.

    Raises `TrainError` for one that is out of range.
    """

    algorithm: str = option(
        "loha",
        Choice(tuple(LOW_RANK)),
        "What is trained.",
        rare=False,
        called="network_module",
        read=algorithm_of,
        node_default="lokr",
    )
    network_dim: int = option(4, Whole(1), "The rank.", rare=False, node_default=32, saved=Saved.NETWORK)
    network_alpha: float = option(
        1.0,
        Number(),
        "ΔW is scaled by network_alpha / network_dim; 0 means network_dim, a scale of 1. A LoKr whose W2 is a full "
        "matrix is never scaled.",
        rare=False,
        node_default=16.0,
        saved=Saved.NETWORK,
    )
    factor: int = option(
        -1,
        Whole(-1, but=0),
        "LoKr: how dimensions are split into those of W1 and W2. -1: as evenly as can be. N: into N and the rest "
        "where N divides, else into the largest divisor up to N.",
        rare=False,
        saved=Saved.NETWORK_ARG,
    )
    rank_dropout: float = option(
        0.0,
        _PROBABILITY,
        "LoHa and LoKr: the probability with which a row of ΔW is left out of a step; the others grow by 1 / (1 - p). "
        "LoRA: the same of a rank, for each sample.",
        saved=Saved.NETWORK_ARG,
    )
    module_dropout: float = option(
        0.0,
        _PROBABILITY,
        "The probability with which a module is left out of a step; nothing makes up for it.",
        saved=Saved.NETWORK_ARG,
    )
    network_dropout: float = option(
        0.0,
        _PROBABILITY,
        "LoRA: dropout between its two matrices. LoHa and LoKr have no such place and ignore it.",
        saved=Saved.OR_NONE,
    )
    exclude_patterns: tuple[str, ...] = option(
        (),
        Texts(),
        "Regular expressions; a module whose whole dotted name one matches is not trained. They come on top of the "
        "architecture's own.",
        saved=Saved.NETWORK_ARG,
    )
    include_patterns: tuple[str, ...] = option(
        (),
        Texts(),
        "Regular expressions; a module that one matches is trained although it is excluded. They never narrow the "
        "choice by themselves.",
        saved=Saved.NETWORK_ARG,
    )
    loraplus_lr_ratio: float = option(
        0.0,
        Number(),
        "LoRA+ (arXiv:2402.12354): how much faster a part of each module learns; 0: off. LoRA: up. LoHa: hada_w2_a, "
        "and LoKr: lokr_w1, as in sd-scripts; Musubi refuses it for these two.",
        saved=Saved.NETWORK_ARG,
    )
    network_reg_dims: tuple[str, ...] = option(
        (),
        _RANKS,
        "PATTERN=RANK: the rank of the modules whose whole dotted name a regular expression matches, instead of "
        "network_dim; the first that matches counts. Of sd-scripts; Musubi has no such option.",
        saved=Saved.NETWORK_ARG,
        since=2,
    )
    network_reg_lrs: tuple[str, ...] = option(
        (),
        _RATES,
        "PATTERN=RATE: the same of learning_rate; 0: the modules stay as they begin. lr_scheduler changes these rates "
        "as it does learning_rate.",
        saved=Saved.NETWORK_ARG,
        draws=True,  # an optimizer's state knows its groups by their number alone
        since=2,
    )
    verbose: bool = option(
        False,
        Truth(),
        "Lists every module that is trained, and every one that is not and why.",
        saved=Saved.NETWORK_ARG,
    )
    bypass_mode: bool = option(
        False,
        Truth(),
        "LoHa: always computes ΔW beside the weight. Off: where it is faster, a module is computed as one product with "
        "their sum, which is made anew each time and, in half precision, rounded stochastically.",
        saved=Saved.NETWORK_ARG,
        since=1,
    )
    seed: int = 0
    """Of the factors' initial values."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("exclude_patterns", "include_patterns"):
            try:
                require_patterns(getattr(self, name))
            except PatternError as error:
                raise TrainError(f"{name}: {error}") from None
        for rule, name in ((_RANKS, "network_reg_dims"), (_RATES, "network_reg_lrs")):
            try:
                require_patterns([pattern for pattern, _ in rule.split(getattr(self, name))])
            except PatternError as error:
                raise TrainError(f"{name}: {error}") from None

    def ranks(self, paths: Collection[str]) -> dict[str, int]:
        """Module -> its rank, for those that `network_reg_dims` gives one."""
        return {path: int(rank) for path, rank in _by_pattern(_RANKS.split(self.network_reg_dims), paths).items()}

    def rates(self, paths: Collection[str]) -> dict[str, float]:
        """Module -> its learning rate, for those that `network_reg_lrs` gives one."""
        return _by_pattern(_RATES.split(self.network_reg_lrs), paths)

    @property
    def alpha(self) -> float:
        """The alpha that counts: `network_alpha`, or the rank where that is 0."""
        return float(self.network_alpha or self.network_dim)

    def all_rates(self, learning_rate: float) -> list[float]:
        """Every learning rate that a part of the network may have, that of most first."""
        rates = [learning_rate, *(rate for _, rate in _RATES.split(self.network_reg_lrs))]
        faster = [rate * self.loraplus_lr_ratio for rate in rates] if self.loraplus_lr_ratio else []
        return list(dict.fromkeys([*rates, *faster]))

    def network_args(self) -> dict[str, str]:
        """What `--network_args` would say, by name: LoKr's factor always, the rest where it is set."""
        args: dict[str, str] = {}
        for made in _network_args().values():
            value: object = getattr(self, made.name)
            always = made.name == "factor" and self.algorithm == "lokr"
            if value != made.default or always:
                args[made.name] = str(list(cast(Sequence[str], value)) if isinstance(value, tuple) else value)
        return args


def _by_pattern(pairs: Sequence[tuple[str, float]], names: Collection[str]) -> dict[str, float]:
    """Name -> the number of the first pattern that matches it."""
    if not pairs:
        return {}
    try:
        matched = matches([pattern for pattern, _ in pairs], names)
    except PatternError as error:
        raise TrainError(f"network_reg_dims or network_reg_lrs: {error}") from None
    for pattern, number in pairs:
        if not matched[pattern]:
            logger.warning("%s=%g matches none of the %d modules that are trained", pattern, number, len(names))
    return {name: number for pattern, number in reversed(pairs) for name in matched[pattern]}


def parse_network_args(texts: Iterable[str]) -> dict[str, Any]:
    """Musubi's `--network_args`, such as `factor=4` and `exclude_patterns=[r'.*ffn.*']`, by option.

    Raises `TrainError` for what is no such option (Musubi ignores it) or cannot be read.
    """
    parsed: dict[str, Any] = {}
    known = _network_args()
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip()
        if name in ("conv_dim", "conv_alpha"):
            raise TrainError(
                f"network_args: '{text}' is for convolutions, of which none is trained here (of HiDream-O1 that is "
                "one, which cuts control images into patches); leave conv_dim and conv_alpha out"
            )
        if not equals or name not in known:
            raise TrainError(
                f"network_args: '{text}' is no option that it takes; expected NAME=VALUE with one of {', '.join(known)}"
            )
        try:
            parsed[name] = known[name].rule.read(value)
        except ValueError as error:
            raise TrainError(f"network_args: '{text}' cannot be read; {error}") from None
    return parsed


def _network_args() -> dict[str, Option]:
    """The options that Musubi takes through `--network_args`, by name."""
    return {made.name: made for made in options_in(NetworkOptions) if made.saved is Saved.NETWORK_ARG}
