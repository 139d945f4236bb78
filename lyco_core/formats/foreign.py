"""Keys that stand in adapter files and are no adapter's: left out by name, where all else unknown is refused."""

from __future__ import annotations

import re
from collections.abc import Callable

from torch import Tensor

from .suffixes import RSLORA_FLAG, is_known, split_key

__all__ = ["foreign"]

_FOREIGN: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"bundle_emb\..+"), "an embedding bundled with the adapter; save it as a file in models/embeddings"),
    (re.compile(r"_aux\..+"), "a writer's own data, marked as auxiliary"),
    (re.compile(r"lokr_factor"), "the factor that a LoKr was made with; its tensors' shapes tell it"),
    (re.compile(r"use_dora_flag"), "says whether there are DoRA magnitudes; the tensors tell it"),
    (re.compile(RSLORA_FLAG), "says that scales are alpha / rank, as they are"),
)
"""A whole key -> what it is. What looks like a part of an adapter is none of these: see `foreign`."""


def foreign(key: str, tensor_of: Callable[[str], Tensor]) -> str | None:
    """What a key is that is known to be no adapter's; None for any other.

    None too where an adapter's suffix ends it, and for a flag of scales that are not alpha / rank.
    """
    if key == RSLORA_FLAG:
        flag = tensor_of(key)
        if flag.numel() != 1 or bool(flag.item()):
            return None
    elif is_known(split_key(key)[1]):
        return None
    return next((what for pattern, what in _FOREIGN if pattern.fullmatch(key)), None)
