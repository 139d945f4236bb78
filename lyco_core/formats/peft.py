"""The alphas that diffusers keeps in a file's metadata: `lora_adapter_metadata`, PEFT's LoraConfig as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, cast

from ..errors import FormatError

__all__ = ["ADAPTER_METADATA", "adapter_metadata", "metadata_alpha"]

ADAPTER_METADATA = "lora_adapter_metadata"
_COMPONENT = "transformer."


def adapter_metadata(ranks: Mapping[str, int], alphas: Mapping[str, float]) -> str:
    """What `load_lora_weights` and `load_lora_adapter` of diffusers make their LoraConfig from.

    Args:
        ranks: module path -> rank.
        alphas: module path -> alpha.
    """
    config = {
        "r": next(iter(ranks.values())),
        "lora_alpha": next(iter(alphas.values())),
        "rank_pattern": dict(ranks),
        "alpha_pattern": dict(alphas),
        "target_modules": sorted(ranks),
        "lora_bias": False,
        "use_dora": False,
        "use_rslora": False,
    }
    return json.dumps({_COMPONENT + name: value for name, value in config.items()}, sort_keys=True)


def metadata_alpha(metadata: Mapping[str, str], module: str, rank: int) -> float | None:
    """The alpha of a LoRA module, for which alpha / rank is its scale; None if the metadata has none.

    Raises:
        FormatError: the metadata cannot be read.
    """
    text = metadata.get(ADAPTER_METADATA)
    if text is None:
        return None
    try:
        config = cast(dict[str, Any], json.loads(text))
        pattern = cast(dict[str, float], config.get(f"{_COMPONENT}alpha_pattern") or {})
        suffixes = (module.split(".", n)[-1] for n in range(module.count(".") + 1))
        alpha = next((pattern[s] for s in suffixes if s in pattern), config.get(f"{_COMPONENT}lora_alpha"))
        if alpha is None:
            return None
        # rsLoRA (arXiv:2312.03732) scales by alpha / sqrt(rank).
        return float(alpha) * (math.sqrt(rank) if config.get(f"{_COMPONENT}use_rslora") else 1.0)
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise FormatError(
            f"its metadata {ADAPTER_METADATA} is not a LoraConfig in JSON, as diffusers writes it"
        ) from None
