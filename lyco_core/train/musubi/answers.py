"""What becomes of every option that a person gives, and what is then trained with."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from ...architectures import ARCHITECTURES
from ...errors import Remedy, TrainError
from ..network_options import parse_network_args
from ..option import Option
from ..options import every_option
from ..rules import FileName, Prompts, Texts, Truth
from .pickles import why_pickle
from .scripts import SCRIPTS, script_named
from .table import DEFAULTS, DEV, ROWS, Fate, Row, Takes, unknown

__all__ = [
    "FILES",
    "Answer",
    "answered",
    "edition",
    "flattened",
    "known",
    "notes_of",
    "option_words",
    "own_options",
    "require_answers",
    "script_answer",
    "takes",
]

FILES = {
    "dit": Takes.FILE,
    "dit_high_noise": Takes.FILE,
    "vae": Takes.FILE,
    "text_encoder": Takes.FILES,
    "clip_type": Takes.ONE,
    "image_encoder": Takes.FILE,
    "output_dir": Takes.FILE,
    "dataset_config": Takes.FILE,
    "comfyui": Takes.FILE,
    "show_timesteps": Takes.ONE,
    "wandb_api_key": Takes.ONE,
}
"""What a configuration names beside the options of a training."""

_NEEDED = ("dit", "vae", "text_encoder")
_ALONE = ("dit",)
"""Of a model that reads pixels and words itself."""

_TABLES = ("general", "datasets", "validation_datasets")


@dataclasses.dataclass(frozen=True)
class Answer:
    """What becomes of one option."""

    name: str
    fate: Fate
    why: str = ""
    """What follows `fate.value`, if anything does."""
    error: str = ""
    """What is refused, as a message; empty unless that says more than `why`."""

    def __str__(self) -> str:
        return f"{self.fate.value} {self.why}".rstrip()


def flattened(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without the sections that they stand in, whose names say nothing; dashes are underscores."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        section = isinstance(value, Mapping) and name not in _TABLES
        inner: Mapping[str, Any] = cast(Mapping[str, Any], value) if section else {name: value}
        found |= {key.replace("-", "_"): one for key, one in inner.items()}
    return found


def answered(settings: Mapping[str, Any], script: str = "") -> tuple[dict[str, Any], list[Answer]]:
    """Settings, as `flattened` gives them, under the names that they have here, and what becomes of each.

    Args:
        script: of Musubi's, without `.py`; empty: none was named.
    """
    kept: dict[str, Any] = {}
    answers = [script_answer(script)] if script else []
    mine = {made.called: made for _, made in every_option()} | {made.name: made for _, made in every_option()}
    for name, value in settings.items():
        if value is None:
            continue
        if name in mine or name in FILES or name in _TABLES or name == "network_args":
            answers.append(_own(name, mine.get(name), value))
            kept[name] = value if name not in kept else [*_listed(value), *_listed(kept[name])]
        elif row := ROWS.get(name):
            answer = _of_row(name, row, value, script)
            answers.append(answer)
            if answer.fate is Fate.MAPPED:
                kept[row.why] = [*_listed(kept.get(row.why, [])), *_listed(value)]
            elif row.of(value)[0] is Fate.SAME:
                kept[name] = value
        else:
            answers.append(Answer(name, Fate.REFUSED, unknown(name, known())))
    if str(kept.pop("model_type", "")).lower() == "dev":
        kept = DEV | kept
    if (own := script_named(script)) and own.timestep_sampling:
        kept.setdefault("timestep_sampling", own.timestep_sampling)
    return kept, answers


def script_answer(script: str) -> Answer:
    """Whether what a script of Musubi's trains is trained here."""
    named = f"{script}.py"
    if (found := script_named(script)) is None:
        return _refused(named, "it is no script of Musubi Tuner that trains")
    if found.refused:
        return _refused(named, found.refused)
    for family in found.families:
        if ARCHITECTURES[family].training is None:
            return _refused(named, f"{ARCHITECTURES[family].title} is not trained here")
    return Answer(named, Fate.SAME)


def known() -> list[str]:
    """Every name that is an option here."""
    return [*FILES, "network_args", *(made.called for _, made in every_option())]


def takes(name: str) -> Takes | None:
    """What follows an option on the command line; None if there is no such option."""
    if name in FILES:
        return FILES[name]
    if row := ROWS.get(name):
        return row.takes
    found = {made.called: made for _, made in every_option()}.get(name)
    if found is None:
        return Takes.MANY if name == "network_args" else None
    return next((takes for rule, takes in _BY_RULE if isinstance(found.rule, rule)), Takes.ONE)


_BY_RULE: Sequence[tuple[type, Takes]] = (
    (Truth, Takes.FLAG),
    (Prompts, Takes.FILE),
    (Texts, Takes.MANY),
    (FileName, Takes.FILE),
)


_EDITION = ("model_version", "edit_plus", "edit")
_OF_DATA = (*_EDITION, "remove_first_image_from_target", "task")


def edition(settings: dict[str, Any]) -> str:
    """Take the edition of Qwen-Image out of settings, by its `model_version`: `edit` and `edit_plus` name one too."""
    version, plus, edit = (settings.pop(name, None) for name in _EDITION)
    return str(version or ("edit-2509" if plus else "edit" if edit else "")).lower()


def own_options(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the settings that `train_options` takes."""
    return {name: value for name, value in settings.items() if name not in {*FILES, *_TABLES, *_OF_DATA}}


def option_words(settings: Mapping[str, Any], answers: Iterable[Answer], script: str = "") -> list[str]:
    """What becomes of every option, one a line, and what is another default here than in Musubi.

    Args:
        script: as `answered` has it.
    """
    lines = [(answer.name, str(answer)) for answer in answers]
    given = {name for name, _ in lines}
    defaults = {made.called: made.default for _, made in every_option()}
    lines += [
        (name, f"not given: {defaults[name]} here, {theirs} in Musubi Tuner")
        for name, theirs in DEFAULTS.items()
        if name not in given
    ]
    lines += [(name, "not given: it is needed to train") for name in _needed(script) if name not in settings]
    width = max(len(name) for name, _ in lines)
    return [f"{name:{width}}  {text}" for name, text in lines]


def _needed(script: str) -> Sequence[str]:
    families = found.families if (found := script_named(script)) else ()
    itself = any((trained := ARCHITECTURES[name].training) and trained.clip_type == "" for name in families)
    return _ALONE if itself else _NEEDED


def _refused(name: str, why: str) -> Answer:
    return Answer(name, Fate.REFUSED, why, f"{name} is refused: {why}")


def require_answers(answers: Sequence[Answer]) -> None:
    """Raise `TrainError` if an option is refused."""
    refused = [answer for answer in answers if answer.fate is Fate.REFUSED]
    if refused:
        first, *more = refused
        also = f"; so are {', '.join(answer.name for answer in more)}" if more else ""
        raise TrainError((first.error or first.why) + also, Remedy.OPTIONS if more else None)


def notes_of(answers: Iterable[Answer]) -> tuple[str, ...]:
    """What a person should know of options that do nothing here, those of one reason together."""
    names: dict[str, list[str]] = {}
    for answer in answers:
        if answer.fate is Fate.NOTHING:
            names.setdefault(answer.why, []).append(answer.name)
    return tuple(f"{', '.join(some)}: nothing to do here: {why}" for why, some in names.items())


def _own(name: str, made: Option | None, value: object) -> Answer:
    """What becomes of an option that there is here. How options go together is another matter: `train_options`."""
    if why := _pickled(name, value):
        return _refused(name, why)
    try:
        if name == "network_args":
            parse_network_args(map(str, _listed(value)))
        elif made is not None:
            found = made.read(value) if made.read else value
            if not made.rule.holds(found):
                return Answer(name, Fate.REFUSED, f"{name} is {found!r}, expected {made.rule.expected}")
    except TrainError as error:
        return Answer(name, Fate.REFUSED, str(error))
    return Answer(name, Fate.SAME)


def _of_row(name: str, row: Row, value: object, script: str) -> Answer:
    """What becomes of an option of Musubi's."""
    if script in SCRIPTS and not SCRIPTS[script].refused and not {"*", SCRIPTS[script].kind} & set(row.kinds):
        return _refused(name, f"{script}.py has no such option")
    fate, why = row.of(value)
    if fate is Fate.MAPPED and (pickled := _pickled(why, value)):
        return _refused(name, pickled)
    if fate is Fate.SAME or (fate is Fate.REFUSED and str(value) in _OFF):
        return Answer(name, Fate.SAME)
    return Answer(name, fate, why, unknown(name, ()) if why == row.why else f"{name} {value} is refused: {why}")


_OFF = ("False", "false", "0", "0.0", "", "[]")
"""Values by which an option of a configuration is not used."""


def _pickled(option: str, value: object) -> str:
    """Why the first pickle among the files that an option names is refused; empty if none is."""
    return next(filter(None, (why_pickle(option, str(file)) for file in _listed(value))), "")


def _listed(value: Any) -> list[Any]:  # noqa: ANN401 - whatever a configuration holds
    return cast(list[Any], value) if isinstance(value, list) else [value] if value else []
