"""What a person is shown of an adapter file before it is used: plain values for a page, from the header alone."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping
from typing import Any, cast

from .blocks import by_block
from .inspection import Inspection
from .io.small_json import parse_small
from .pictures import MAX_PICTURE_BYTES, Picture, picture_beside, picture_of
from .text import one_line

__all__ = ["card", "picture"]

FACTS: dict[str, tuple[str, ...]] = {
    "title": ("modelspec.title", "ss_output_name", "name"),
    "author": ("modelspec.author",),
    "description": ("modelspec.description",),
    "resolution": ("modelspec.resolution", "ss_resolution"),
    "date": ("modelspec.date",),
    "steps": ("ss_steps",),
    "epochs": ("ss_epoch",),
    "trigger": ("modelspec.trigger_phrase", "ss_trigger_words", "trigger_word"),
}
"""Fact -> metadata keys that have it, the best one first (ModelSpec 1.0.1, sd-scripts and Musubi Tuner, ai-toolkit)."""

LONGEST = 300
"""How many characters of a fact are shown."""

TAGS = 8
"""So many of the most frequent tags are shown."""

NUMBERS = 16
"""So many different ranks and alphas are shown."""

_MOST_TAG_TEXT = 2**22
"""The longest table of tags that is read, in characters."""


def card(inspection: Inspection) -> dict[str, Any]:
    """Plain types, every text in one line and of bounded length; unknown is None or empty."""
    found = inspection.adapter_set
    return {
        "file": _text(inspection.file),
        "bytes": inspection.file_bytes,
        "format": found.format.title if found.format else inspection.kind,
        "architecture": found.family or None,
        "modules": len(found.adapters),
        "algorithms": found.titles,
        "ranks": found.ranks[:NUMBERS],
        "alphas": found.alphas[:NUMBERS],
        "unrecognised": len(found.unrecognised),
        "left_out": [_text(line) for line in found.left_out],
        "blocks": by_block(found.adapters, found.adapters),
        "facts": {name: value for name, keys in FACTS.items() if (value := _fact(found.metadata, keys))},
        "tags": _tags(found.metadata.get("ss_tag_frequency", "")),
    }


def picture(path: str, metadata: Mapping[str, str]) -> Picture | None:
    """A file's preview, beside it or in its metadata; None if it has none that can be shown: see `picture_of`."""
    if (beside := picture_beside(path)) is not None:
        return beside
    text = metadata.get("modelspec.thumbnail", "")
    if not text.startswith("data:image/") or len(text) > MAX_PICTURE_BYTES * 4 // 3:
        return None
    try:
        return picture_of(base64.b64decode(text.partition(",")[2], validate=True))
    except ValueError:  # no base64, or no ASCII
        return None


def _fact(metadata: Mapping[str, str], keys: tuple[str, ...]) -> str:
    value = next((metadata[key] for key in keys if metadata.get(key) not in (None, "", "None", "null")), "")
    return _text(value)


def _text(value: str) -> str:
    line = one_line(value[: LONGEST + 1])
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"


def _tags(text: str) -> list[str]:
    """The most frequent tags of sd-scripts' `ss_tag_frequency`: JSON of dataset -> tag -> count."""
    try:
        datasets: Any = parse_small(text, _MOST_TAG_TEXT) if text else {}
    except ValueError:
        return []  # a note of the trainer's about its data: what it lacks is not an error of the file
    counts: Counter[str] = Counter()
    for tags in cast(dict[str, Any], datasets).values() if isinstance(datasets, dict) else ():
        if isinstance(tags, dict):
            known = cast(dict[str, Any], tags)
            counts.update({tag: count for tag, count in known.items() if type(count) is int and 0 < count < 2**53})
    return [_text(tag.strip()) for tag, _ in counts.most_common(TAGS)]
