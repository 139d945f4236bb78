"""What PEFT and diffusers keep beside the tensors: a LoraConfig as JSON, in metadata or in adapter_config.json."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Callable, Mapping
from typing import Any, cast

from ..adapters import CAYLEY, TERMS
from ..errors import FileError, FormatError
from ..io.header import open_binary, read_all
from ..io.small_json import parse_small

__all__ = [
    "ADAPTER_METADATA",
    "CONFIG_FILE",
    "OFT_OPTIONS",
    "OftOptions",
    "PeftConfig",
    "adapter_metadata",
    "config_in_metadata",
    "read_config",
]

ADAPTER_METADATA = "lora_adapter_metadata"
CONFIG_FILE = "adapter_config.json"
_MOST_BYTES = 2**22
"""A larger configuration is none."""

_MOST_PARTS = 64
"""So many of the last parts of a module's name are compared with a pattern."""

_COMPONENTS = ("transformer.", "unet.")
"""What diffusers puts before each of a component's settings."""


OFT_OPTIONS = "use_cayley_neumann and num_cayley_neumann_terms"

_OFT_VERSION = 0, 18
"""Of PEFT: what those before wrote becomes another rotation, and their configuration does not name the version."""


@dataclasses.dataclass(frozen=True)
class OftOptions:
    """How an OFTConfig makes rotations."""

    terms: int
    """See `adapters.OFTv2`."""
    eps: float | None
    """What COFT holds a block's norm to, if it does."""


@dataclasses.dataclass(frozen=True)
class PeftConfig:
    """The ranks and alphas of a LoraConfig, LoHaConfig or LoKrConfig; patterns are by the end of a module's name."""

    rank: float | None
    alpha: float | None
    rank_pattern: Mapping[str, float]
    """End of a module's name -> rank."""
    alpha_pattern: Mapping[str, float]
    use_rslora: bool
    oft: OftOptions | None = None
    """None of another kind of configuration, or of one that does not tell the rotation."""

    def scale(self, module: str, rank: int | None) -> float | None:
        """What PEFT multiplies a module's product with: alpha / r, for rsLoRA (arXiv:2312.03732) alpha / sqrt(r).

        Args:
            rank: of the module's tensors; None where they are full matrices, which PEFT scales all the same.
        """
        alpha = _of_module(self.alpha_pattern, module, self.alpha)
        configured_rank = _of_module(self.rank_pattern, module, self.rank)
        divisor = rank if rank is not None else configured_rank
        if alpha is None or not divisor:
            return None
        return alpha / (math.sqrt(divisor) if self.use_rslora else divisor)


def _of_module(pattern: Mapping[str, float], module: str, otherwise: float | None) -> float | None:
    """The value for the longest end of the module's name; PEFT allows regular expressions, but writes names."""
    if not pattern:
        return otherwise
    parts = module.rsplit(".", _MOST_PARTS)
    ends = (".".join(parts[n:]) for n in range(len(parts)))
    return next((pattern[end] for end in ends if end in pattern), otherwise)


def adapter_metadata(ranks: Mapping[str, int], alphas: Mapping[str, float], *, use_dora: bool, component: str) -> str:
    """What `load_lora_weights` and `load_lora_adapter` of diffusers make their LoraConfig from.

    Args:
        ranks: module path -> rank.
        alphas: module path -> alpha.
        use_dora: whether the modules have magnitudes.
        component: `transformer.` or `unet.`.
    """
    first_longest = sorted(ranks, key=lambda path: (-len(path), path))  # PEFT takes the first that a name ends with
    config = {
        "r": next(iter(ranks.values())),
        "lora_alpha": next(iter(alphas.values())),
        "rank_pattern": {path: ranks[path] for path in first_longest},
        "alpha_pattern": {path: alphas[path] for path in first_longest},
        "target_modules": sorted(ranks),
        "lora_bias": False,
        "use_dora": use_dora,
        "use_rslora": False,
    }
    return json.dumps({component + name: value for name, value in config.items()})


def config_in_metadata(metadata: Mapping[str, str]) -> PeftConfig | None:
    """The diffusion model's LoraConfig that diffusers saved in a file; None if there is none.

    Raises:
        FormatError: the metadata cannot be read.
    """
    text = metadata.get(ADAPTER_METADATA)
    if text is None:
        return None
    try:
        config = cast(dict[str, Any], parse_small(text, _MOST_BYTES))
        component = next((c for c in _COMPONENTS if any(key.startswith(c) for key in config)), "")
        return _config({k.removeprefix(component): v for k, v in config.items() if k.startswith(component)})
    except (ValueError, TypeError, AttributeError, OverflowError):
        raise FormatError(
            f"its metadata {ADAPTER_METADATA} is not a LoraConfig in JSON, as diffusers writes it"
        ) from None


def read_config(path: str | os.PathLike[str]) -> PeftConfig | None:
    """The `adapter_config.json` beside an adapter file; None if there is none.

    Raises:
        FormatError: it is there and cannot be read.
    """
    beside = os.path.join(os.path.dirname(os.fspath(path)), CONFIG_FILE)
    if not os.path.isfile(beside):
        return None
    try:
        with open_binary(beside) as file:
            data = read_all(file, _MOST_BYTES)
        return _config(cast(dict[str, Any], parse_small(str(data, "utf-8"), _MOST_BYTES)))
    except (FileError, OSError, ValueError, TypeError, AttributeError, OverflowError):
        raise FormatError(f"{CONFIG_FILE} beside it is not PEFT's configuration in JSON; remove or repair it") from None


def _config(config: Mapping[str, Any]) -> PeftConfig:
    alpha = config.get("lora_alpha", config.get("alpha"))
    rank = config.get("r")
    return PeftConfig(
        None if rank is None else _positive(rank),
        None if alpha is None else _finite(alpha),
        _by_end(config.get("rank_pattern"), _positive),
        _by_end(config.get("alpha_pattern"), _finite),
        bool(config.get("use_rslora")),
        _oft(config) if config.get("peft_type") == "OFT" else None,
    )


def _oft(config: Mapping[str, Any]) -> OftOptions | None:
    series, version = config.get("use_cayley_neumann"), str(config.get("peft_version", "0")).split("@")[0].split(".")
    if series is None or tuple(int(n) for n in version[:2] if n.isdecimal()) < _OFT_VERSION:
        return None
    terms = int(_positive(config.get("num_cayley_neumann_terms", TERMS))) if series else CAYLEY
    return OftOptions(terms, _positive(config.get("eps", 6e-5)) if config.get("coft") else None)


def _by_end(pattern: object, number: Callable[[Any], float]) -> dict[str, float]:
    table = cast(dict[str, Any], pattern or {})
    return {k.removeprefix("^").removesuffix("$").replace("\\.", "."): number(value) for k, value in table.items()}


def _finite(value: Any) -> float:  # noqa: ANN401 - what JSON holds
    if not math.isfinite(number := float(value)):
        raise ValueError
    return number


def _positive(value: Any) -> float:  # noqa: ANN401
    if (number := _finite(value)) < 0:
        raise ValueError
    return number
