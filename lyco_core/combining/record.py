"""What a combined file says of itself: what its files agree on, their words, and what was combined."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, cast

from ..adapters import Adapter
from ..io.hashes import sha256
from ..io.small_json import parse_small
from ..version import __version__
from .options import CombineOptions
from .sources import Opened

__all__ = ["RECORD", "combined_metadata"]

RECORD = "lyco_combination"
"""Metadata key: a JSON object."""

_WORDS = ("modelspec.trigger_phrase", "ss_trigger_words", "trigger_word", "modelspec.tags")
"""Lists of words, of which all count."""

_TAGS = "ss_tag_frequency"
"""JSON of dataset -> tag -> count."""

_STALE = ("sshs_model_hash", "sshs_legacy_hash", "modelspec.hash_sha256", "modelspec.thumbnail", "lyco_architecture")
"""What is true of one file only."""

_NETWORK = ("ss_network_dim", "ss_network_alpha", "ss_network_args", "ss_network_module")
"""What the network was; that of a sum is another."""

_MOST_TAG_TEXT = 2**22


def combined_metadata(
    opened: Sequence[Opened], options: CombineOptions, made: Sequence[Adapter], *, same_form: bool
) -> dict[str, str]:
    """The metadata of the new file.

    Args:
        same_form: whether it is the average of factors: then the last checkpoint's metadata is true of it.
    """
    every = [one.adapter_set.metadata for one in opened]
    if same_form:
        kept = {key: value for key, value in every[-1].items() if key not in _STALE}
    else:
        stale = {*_STALE, *_NETWORK}
        kept = {k: v for k, v in every[0].items() if k not in stale and all(notes.get(k) == v for notes in every)}
        kept |= _words(every) | _tags(every) | _network(made)
    return kept | {RECORD: json.dumps(_record(opened, options), ensure_ascii=False)}


def _words(every: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Each list with the words of all files once, in the order of the files."""
    found: dict[str, str] = {}
    for key in _WORDS:
        texts = [notes.get(key, "") for notes in every]
        words = [word.strip() for text in texts if text not in ("None", "null") for word in text.split(",")]
        if words := [word for word in dict.fromkeys(words) if word]:
            found[key] = ", ".join(words)
    return found


def _tags(every: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """The counts of all files together, by the names of their datasets."""
    datasets: dict[str, Counter[str]] = {}
    for notes in every:
        try:
            parsed: Any = parse_small(notes[_TAGS], _MOST_TAG_TEXT) if notes.get(_TAGS) else {}
        except ValueError:
            continue  # a note of the trainer's about its data: what it lacks is not an error of the file
        for name, tags in cast(dict[str, Any], parsed).items() if isinstance(parsed, dict) else ():
            if isinstance(tags, dict):
                known = cast(dict[str, Any], tags)
                datasets.setdefault(name, Counter()).update({t: n for t, n in known.items() if type(n) is int})
    return {_TAGS: json.dumps(datasets, ensure_ascii=False)} if datasets else {}


def _network(made: Sequence[Adapter]) -> dict[str, str]:
    """What trainers write of a network, where the result is of one algorithm; the largest rank stands for all."""
    ranks = [adapter.rank for adapter in made if adapter.rank is not None]
    kinds = {adapter.algorithm for adapter in made}
    found = {"ss_network_module": f"networks.{kinds.pop()}"} if len(kinds) == 1 else {}
    return found | ({"ss_network_dim": str(max(ranks)), "ss_network_alpha": "Dynamic"} if ranks else {})


def _record(opened: Sequence[Opened], options: CombineOptions) -> dict[str, Any]:
    said: dict[str, Any] = {"version": __version__, "method": options.method}
    if options.method in ("ties", "dare", "della", "breadcrumbs", "knots"):
        said["density"] = options.kept
    if options.method in ("dare", "della"):
        said["seed"] = options.seed
    if options.method == "della":
        said["epsilon"] = options.epsilon
    if options.method == "breadcrumbs":
        said["gamma"] = options.gamma
    if (average := options.average) is not None:
        said["average"] = average.kind
        said |= {"ema": {"beta": average.beta}, "post-hoc": {"sigma_rel": average.sigma_rel}}.get(average.kind, {})
    if options.base is not None:
        said["base"] = os.path.basename(options.base)
    files = [
        {
            "name": one.name,
            **({"sha256": sha256(one.addend.source.path)} if one.addend.adapters is None else {}),
            "strength": one.strength,
            **one.addend.selection.as_json(),
        }
        for one in opened
    ]
    return {**said, "adapters": files}
