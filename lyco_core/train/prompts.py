"""The prompts of samples that are made while it trains, in Musubi Tuner's format: lines of text, TOML or JSON."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from ..errors import TrainError, about_file
from ..io.toml import read_toml
from .sample_prompt import OF_SOUND, SEVERAL, SINGLE, SamplePrompt, about_prompt

__all__ = ["PromptLines", "read_prompts"]

PromptLines = str | Sequence[str | Mapping[str, Any]]
"""The path of a file of prompts, or its lines."""


_LETTERS = {
    "w": "width",
    "h": "height",
    "f": "frame_count",
    "d": "seed",
    "s": "sample_steps",
    "g": "guidance_scale",
    "fs": "discrete_flow_shift",
    "l": "cfg_scale",
    "n": "negative_prompt",
    "i": "image_path",
    "ei": "end_image_path",
    "ci": "control_image_path",
    "cn": "control_video_path",
    **{name: name for name in OF_SOUND},
}
"""What stands behind ` --` in a line -> its name, which is that in TOML and JSON."""

_REFUSED = {"of": "one_frame"}
"""What Musubi has beside these, in the same way."""

_TEXTS = (
    "prompt",
    "negative_prompt",
    "image_path",
    "end_image_path",
    "control_video_path",
    "lyrics",
    "timesignature",
    "language",
    "keyscale",
)

_PATHS = (*SINGLE, SEVERAL)

_LEAST = {"width": 16, "height": 16, "frame_count": 1, "seed": 0, "sample_steps": 1, "bpm": 1}
_MOST_STEPS = 1000


def read_prompts(given: PromptLines) -> tuple[SamplePrompt, ...]:
    """The prompts of a file or of lines; empty lines, and those that begin with #, are none.

    Raises `TrainError`, which names the file and the prompt, for what cannot be read, or not be sampled here.
    """
    if not isinstance(given, str):
        return _prompts(given)
    with about_file(given):
        return _prompts(_entries(Path(given)))


def _entries(path: Path) -> Sequence[Any]:
    """The lines of a file, or its tables."""
    kind = path.suffix.lower()
    if kind == ".toml":
        described = read_toml(path).get("prompt")
        shared = dict(cast(Mapping[str, Any], described)) if isinstance(described, Mapping) else {}
        subsets = shared.pop("subset", None)
        if not isinstance(subsets, list):
            raise TrainError("has no [[prompt.subset]], expected one for each prompt")
        return [shared | subset for subset in cast(list[dict[str, Any]], subsets)]
    if kind not in (".txt", ".json"):
        raise TrainError(f"ends in {kind or 'nothing'}, expected a file of prompts that is .txt, .toml or .json")
    try:
        text = path.read_text("utf-8-sig")
        found: object = text.splitlines() if kind == ".txt" else json.loads(text)
    except OSError as error:
        raise TrainError(f"cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise TrainError(f"is no {kind[1:]} file in UTF-8: {error}") from None
    if not isinstance(found, list):
        raise TrainError("is no list, expected one of prompts")
    return cast(list[Any], found)


def _prompts(entries: Iterable[Any]) -> tuple[SamplePrompt, ...]:
    kept = [e for e in entries if not isinstance(e, str) or (e.strip() and not e.startswith("#"))]
    if not kept:
        raise TrainError("there is no prompt in sample_prompts; write one a line")
    return tuple(_prompt(number, entry) for number, entry in enumerate(kept, 1))


def _prompt(number: int, entry: object) -> SamplePrompt:
    with about_prompt(number):
        if isinstance(entry, str):
            return _checked(_of_line(entry))
        if isinstance(entry, Mapping):
            return _checked(cast(Mapping[str, Any], entry))
        raise TrainError(f"is {entry!r}, expected a line or a table")


def _of_line(line: str) -> dict[str, Any]:
    """Names and values of a line: the prompt, then ` --w 512` and so on; \\n in lyrics begins a line."""
    text, *options = line.strip().split(" --")
    found: dict[str, Any] = {"prompt": text}
    for option in options:
        letters, _, value = option.strip().partition(" ")
        name = (_LETTERS | _REFUSED).get(letters.lower())
        if name is None:
            raise TrainError(f"--{letters} is none of its options, which are --{', --'.join(_LETTERS)}")
        if name in _PATHS and not value.strip():
            raise TrainError(f"{name} is empty, expected the path of a picture or a video")
        if name == SEVERAL:
            found[name] = [*found.get(name, ()), value.strip()]
        else:
            found[name] = value.strip() if name in (*_TEXTS, *_REFUSED.values()) else _number(name, value)
    if "lyrics" in found:
        found["lyrics"] = found["lyrics"].replace("\\n", "\n")
    return found


def _number(name: str, text: str) -> int | float:
    whole = name in _LEAST
    if not re.fullmatch(r"\s*\d+\s*" if whole else r"\s*(\d+\.?\d*|\.\d+)\s*", text):
        expected = "a whole number" if whole else "a number"
        raise TrainError(f"{name} is {text.strip()!r}, expected {expected}")
    return int(text) if whole else float(text)


def _checked(found: Mapping[str, Any]) -> SamplePrompt:
    names = {field.name for field in dataclasses.fields(SamplePrompt)}
    for name in found:
        if name in _REFUSED.values():
            raise TrainError(
                f"{name} is not sampled with here; leave it out, or sample with the saved adapters in a workflow"
            )
        if name not in names | {"enum"}:
            raise TrainError(f"{name} is none of its options, which are {', '.join(sorted(names))}")
    values = {name: value for name, value in found.items() if name in names}
    for name, value in values.items():
        _require(name, value)
    if "sample_steps" in values:
        values["sample_steps"] = max(1, min(_MOST_STEPS, values["sample_steps"]))
    if (paths := values.get(SEVERAL)) is not None:
        values[SEVERAL] = (paths,) if isinstance(paths, str) else tuple(paths)
    return SamplePrompt(**values)


def _require(name: str, value: object) -> None:
    """Raise `TrainError` unless an option of a prompt can have a value."""
    if name in _TEXTS:
        right, expected = isinstance(value, str), "a text"
    elif name == SEVERAL:
        paths = cast(list[Any], value) if isinstance(value, (list, tuple)) else [value]
        right, expected = all(isinstance(path, str) for path in paths), "a text, or a list of such"
    elif name in _LEAST:
        least = 0 if name == "sample_steps" else _LEAST[name]  # as Musubi has it, 0 steps are one
        right = isinstance(value, int) and not isinstance(value, bool) and value >= least
        expected = f"a whole number of at least {least}"
    else:
        right = isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0
        expected = "a number of at least 0"
    if not right:
        raise TrainError(f"{name} is {value!r}, expected {expected}")
