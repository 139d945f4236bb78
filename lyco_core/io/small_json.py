"""JSON from a stranger that should be small: a configuration, an index, a table of tags."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["parse_small"]

_MOST_PARTS = 10_000
"""Lists and objects. Millions of them, at three characters each, take Python seconds in which nothing else runs."""


def parse_small(text: str, most: int) -> Any:  # noqa: ANN401 - what JSON holds
    """The value that a JSON text holds.

    Raises:
        ValueError: it has over `most` characters, is no JSON, or has too many parts or too deep ones.
    """
    if len(text) > most or text.count("{") + text.count("[") > _MOST_PARTS:
        raise ValueError("is larger than expected")
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("is too deep") from None
