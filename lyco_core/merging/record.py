"""What a merged file says of itself: what went into it, how strongly, and how it was rounded."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any, cast

from ..io.hashes import auto_v1, sha256
from .options import Source
from .plan import Plan

__all__ = ["RECORD", "merged_metadata"]

RECORD = "lyco_merge"
"""Metadata key: a JSON list, one object for each merge that the file has seen."""

_STALE = ("modelspec.hash_sha256", "sshs_model_hash", "sshs_legacy_hash", "modelspec.date")
"""Hashes of the weights as they were."""


def merged_metadata(plan: Plan, sources: Sequence[Source]) -> dict[str, str]:
    """The base's metadata, without what a merge makes untrue, and with the record of this one."""
    metadata = {key: value for key, value in plan.metadata().items() if key not in _STALE}
    records = _earlier(metadata.get(RECORD))
    rounding = "nearest" if plan.options.seed is None else f"stochastic, seed {plan.options.seed}"
    record: dict[str, Any] = {
        "base": {"name": plan.checkpoint.name, "autov1": auto_v1(plan.checkpoint.files[0].path)},
        "adapters": [
            _adapter(source) | ({"left_out": addition.left_out} if addition.left_out else {})
            for source, addition in zip(sources, plan.additions, strict=True)
        ],
        "rounding": rounding,
        **({"quantized": plan.options.quantize} if plan.options.quantize else {}),
        **plan.options.selection.as_json(),
    }
    return metadata | {RECORD: json.dumps([*records, record], ensure_ascii=False)}


def _adapter(source: Source) -> dict[str, Any]:
    return {"name": os.path.basename(source.path), "sha256": sha256(source.path), "strength": source.strength}


def _earlier(text: str | None) -> list[Any]:
    """Records that the base has; what is no list of them is kept as it is."""
    if text is None:
        return []
    try:
        parsed: Any = json.loads(text)
    except (ValueError, RecursionError):
        return [text]
    return cast(list[Any], parsed) if isinstance(parsed, list) else [parsed]
