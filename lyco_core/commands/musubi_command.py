"""A command line of Musubi Tuner's, as it is typed, as settings."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import TrainError
from ..train.musubi.answers import Answer, takes
from ..train.musubi.table import Fate, Row, Takes
from ..train.options import every_option
from ..train.rules import Rule, Truth

__all__ = ["Command", "read_command", "without"]

_ALONE = {"check_options": Takes.FLAG, "config_file": Takes.FILE}
"""What the command itself takes."""

_PROCESSES = "torchrun starts several processes: torchrun --nproc-per-node N -m lyco_core train …"

_LAUNCHER = {
    "mixed_precision": Row(Takes.ONE, ("*",), Fate.MAPPED, "the script's mixed_precision, where that is not given"),
    "num_processes": Row(Takes.ONE, ("*",), Fate.REFUSED, _PROCESSES, (("1", Fate.NOTHING, "one process trains"),)),
    "num_machines": Row(Takes.ONE, ("*",), Fate.REFUSED, _PROCESSES, (("1", Fate.NOTHING, "one process trains"),)),
    "multi_gpu": Row(Takes.FLAG, ("*",), Fate.REFUSED, _PROCESSES),
}
"""Options of `accelerate launch`, of which nothing but these has a meaning without it."""


@dataclasses.dataclass(frozen=True)
class Command:
    """What was typed behind `lyco train`."""

    config: str
    """A configuration that was named alone; relative paths in it start from its folder."""
    config_file: str
    """That of --config_file; relative paths in it start, as in Musubi, from the current folder."""
    script: str
    """The script of Musubi's that was named, without `.py`."""
    given: Mapping[str, Any]
    """Options, with values of the types that a configuration has, and with absolute paths."""
    launcher: tuple[Answer, ...]
    """What becomes of the options of `accelerate launch`."""
    check: bool
    """Whether to tell only what becomes of the options."""


def read_command(words: Sequence[str]) -> Command:
    """The options of a command line: `[launcher … SCRIPT.py] [CONFIG.toml] [--NAME VALUE …] …`.

    What an option is, and which values it may have, `answered` says. Raises `TrainError` for one without its value.
    """
    script, launched, rest = _script_of(words)
    given, alone = _options_in(rest)
    launcher, defaults = _launcher(launched)
    file = str(given.pop("config_file", ""))
    if file and len(alone) > 0:
        raise TrainError(f"both {alone[0]} and --config_file {file} are named; name one of them")
    if len(alone) > 1:
        raise TrainError(f"{alone[1]}: one argument too many; {alone[0]} is the configuration already")
    check = bool(given.pop("check_options", False))
    file = file if not file or file.endswith(".toml") else f"{file}.toml"
    return Command(alone[0] if alone else "", file, script, {**defaults, **given}, launcher, check)


def without(words: Sequence[str], option: str) -> list[str]:
    """Words of a command line less those of an option that takes one value."""
    kept: list[str] = []
    left = list(words)
    while left:
        name, equals, _ = (word := left.pop(0)).partition("=")
        if name.replace("-", "_") != f"__{option}":
            kept.append(word)
        elif not equals:
            del left[:1]
    return kept


_STARTERS = re.compile(r"(.*[/\\])?(accelerate|python[\d.]*|torchrun|uv)(\.exe)?", re.IGNORECASE)
"""What a command that launches a script begins with."""


def _script_of(words: Sequence[str]) -> tuple[str, Sequence[str], Sequence[str]]:
    """The script that is run, what launches it, and all other words."""
    for index, word in enumerate(words):
        if found := re.search(r"([^/\\]+)\.py$", word):
            start = next((n for n, before in enumerate(words[:index]) if _STARTERS.fullmatch(before)), index)
            return found[1], words[start:index], [*words[:start], *words[index + 1 :]]
    return "", (), words


def _launcher(words: Sequence[str]) -> tuple[tuple[Answer, ...], dict[str, Any]]:
    """What becomes of a launcher's options, and those of them that the script takes where it says nothing else."""
    answers: list[Answer] = []
    given: dict[str, Any] = {}
    for word, following in zip(words, [*words[1:], ""], strict=False):
        name, equals, value = word.removeprefix("--").partition("=")
        name = name.replace("-", "_")
        if not word.startswith("--") or not name:
            continue
        value = value if equals else following
        row = _LAUNCHER.get(name)
        fate, why = row.of(value) if row else (Fate.NOTHING, "lyco train launches itself")
        named = f"{words[0]} --{name}"
        answers.append(Answer(named, fate, why, f"{named} {value} is refused: {why}"))
        if fate is Fate.MAPPED:
            given[name] = value
    return tuple(answers), given


def _options_in(words: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Options by name, and the words that belong to none."""
    given: dict[str, Any] = {}
    alone: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        if not word.startswith("--"):
            alone.append(word)
            continue
        name, equals, value = word[2:].partition("=")
        name = name.replace("-", "_")
        kind = _ALONE.get(name) or takes(name) or Takes.MANY  # of what is unknown, its answer says so
        values = [value] if equals else _values(kind, left)
        if kind in (Takes.ONE, Takes.FILE) and len(values) != 1:
            raise TrainError(f"--{name} needs a value")
        given[name] = _value(name, kind, values)
    return given, alone


def _values(kind: Takes, left: list[str]) -> list[str]:
    """Take the words that are an option's values out of those that are left."""
    most = {Takes.FLAG: 0, Takes.ONE: 1, Takes.FILE: 1}.get(kind, len(left))
    found: list[str] = []
    while left and len(found) < most and not left[0].startswith("--"):
        found.append(left.pop(0))
    return found


def _value(name: str, kind: Takes, values: list[str]) -> Any:  # noqa: ANN401 - as in a configuration
    if kind is Takes.FILE:
        return values[0] if name == "config_file" else _path(values[0])
    if kind is Takes.FILES:
        return [_path(value) for value in values]
    made = {made.called: made for _, made in every_option()}.get(name)
    if kind is Takes.MANY:
        return values
    if kind is Takes.FLAG:
        return _read(Truth(), values[0]) if values else True
    return values[0] if made is None or made.read else _read(made.rule, values[0])


def _read(rule: Rule, text: str) -> Any:  # noqa: ANN401
    """The value of a text, or the text itself if it has none, which the rule then refuses."""
    try:
        return rule.read(text)
    except ValueError:
        return text


def _path(text: str) -> str:
    return os.path.abspath(os.path.expanduser(text)) if text else ""
